// Programs that are written with client-go and controller-runtime, and judge what they see. `clients informers|leaders|operator`; a row a judgement.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var failed bool

// holds prints what was judged, and remembers that something was not as it must be.
func holds(what string, err error) bool {
	if err != nil {
		failed = true
		fmt.Printf("NOT OK  %s: %v\n", what, err)
		return false
	}
	fmt.Printf("ok      %s\n", what)
	return true
}

// until calls a judgement until it is content; its last complaint is returned when the time is over.
func until(ctx context.Context, limit time.Duration, judge func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := judge()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		fmt.Println("NOT OK  a kubeconfig:", err)
		os.Exit(1)
	}
	config.QPS, config.Burst = 1000, 1000
	commands := map[string]func(context.Context, *rest.Config){"informers": informers, "leaders": leaders, "operator": operator}
	command := commands[os.Args[1]]
	command(ctx, config)
	if failed {
		os.Exit(1)
	}
}
