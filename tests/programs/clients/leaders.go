// Leader election: one of three leads, and another when it has gone.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func leaders(ctx context.Context, config *rest.Config) {
	var lock sync.Mutex
	leads, most := map[string]bool{}, 0
	ends := map[string]context.CancelFunc{}
	for _, name := range []string{"ann", "bob", "cid"} {
		mine, err := resourcelock.New(resourcelock.LeasesResourceLock, "default", "helm", nil, kubernetes.NewForConfigOrDie(config).CoordinationV1(), resourcelock.ResourceLockConfig{Identity: name})
		if err != nil {
			holds("a lock", err)
			return
		}
		own, end := context.WithCancel(ctx)
		ends[name] = end
		go leaderelection.RunOrDie(own, leaderelection.LeaderElectionConfig{
			Lock: mine, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 300 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					lock.Lock()
					defer lock.Unlock()
					leads[name] = true
					most = max(most, len(leads))
				},
				OnStoppedLeading: func() {
					lock.Lock()
					defer lock.Unlock()
					delete(leads, name)
				},
			},
		})
	}
	leader := func(not string) (found string, err error) {
		err = until(ctx, 15*time.Second, func() error {
			lock.Lock()
			defer lock.Unlock()
			for name := range leads {
				if name != not {
					found = name
					return nil
				}
			}
			return errors.New("nobody leads")
		})
		return found, err
	}
	first, err := leader("")
	if !holds("one of three candidates leads", err) {
		return
	}
	ends[first]()
	_, err = leader(first)
	holds("another leads when it has gone", err)
	lock.Lock()
	defer lock.Unlock()
	if most != 1 {
		err = fmt.Errorf("%d led at once", most)
	}
	holds("never two at once", err)
}
