// Informers of every make, through a storm of changes and through the server's ends: what they hold must be what a list says.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamic "k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	coreinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const storm = "storm"

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// informers is driven by the suite: it says `stormed` when the first storm is over, waits for the file CLIENTS_GO_ON, which the
// suite writes when it has killed the server some times, and judges once more.
func informers(ctx context.Context, config *rest.Config) {
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client := kubernetes.NewForConfigOrDie(binary)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: storm}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		holds("a namespace", err)
		return
	}

	of := coreinformers.WithNamespace(storm)
	typed := coreinformers.NewSharedInformerFactoryWithOptions(client, 0, of)
	plain := coreinformers.NewSharedInformerFactoryWithOptions(kubernetes.NewForConfigOrDie(config), 0, of)
	free := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(config), 0, storm, nil)
	bare := metadatainformer.NewFilteredSharedInformerFactory(metadata.NewForConfigOrDie(config), 0, storm, nil)
	watched := map[string]cache.SharedIndexInformer{
		"protobuf": typed.Core().V1().ConfigMaps().Informer(),
		"JSON":     plain.Core().V1().ConfigMaps().Informer(),
		"dynamic":  free.ForResource(configMaps).Informer(),
		"metadata": bare.ForResource(configMaps).Informer(),
	}
	told := map[string]*atomic.Int64{}
	for name, informer := range watched {
		balance := &atomic.Int64{}
		told[name] = balance
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { balance.Add(1) },
			DeleteFunc: func(any) { balance.Add(-1) },
		})
		if err != nil {
			holds("a handler of "+name, err)
			return
		}
		go informer.RunWithContext(ctx)
	}
	for name, informer := range watched {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			holds(name+" has synced", ctx.Err())
			return
		}
	}

	blow(ctx, client, 0)
	equal(ctx, client, watched, told, "after a storm", 30*time.Second)
	fmt.Println("stormed")
	// Writes go on while the server ends and comes again; what it refuses or loses meanwhile is for it and the list to say.
	ended, stop := context.WithCancel(ctx)
	go func() {
		for round := 1; ended.Err() == nil; round++ {
			blow(ended, client, round)
		}
	}()
	if err := until(ctx, 4*time.Minute, func() error { _, err := os.Stat(os.Getenv("CLIENTS_GO_ON")); return err }); err != nil {
		holds("the suite has done its part", err)
	}
	stop()
	// client-go waits up to a minute before it comes back to a server that it did not find several times.
	equal(ctx, client, watched, told, "after the server's ends", 2*time.Minute)
}

// blow makes, changes and deletes objects; a round's answers may be errors when the server is away.
func blow(ctx context.Context, client kubernetes.Interface, round int) {
	objects := client.CoreV1().ConfigMaps(storm)
	for i := range 200 {
		name := fmt.Sprintf("drop-%d-%d", round%3, i)
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"round": fmt.Sprint(round)}}
		_, err := objects.Create(ctx, object, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			_, _ = objects.Update(ctx, object, metav1.UpdateOptions{})
		}
		if i%3 == 0 {
			_ = objects.Delete(ctx, name, metav1.DeleteOptions{})
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// equal judges that each cache holds what a list says, by name and revision, and that its handlers were told of as many.
func equal(ctx context.Context, client kubernetes.Interface, watched map[string]cache.SharedIndexInformer, told map[string]*atomic.Int64, when string, limit time.Duration) {
	for _, name := range slices.Sorted(maps.Keys(watched)) {
		err := until(ctx, limit, func() error {
			list, err := client.CoreV1().ConfigMaps(storm).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			want, got := map[string]string{}, map[string]string{}
			for i := range list.Items {
				want[list.Items[i].Name] = list.Items[i].ResourceVersion
			}
			for _, object := range watched[name].GetStore().List() {
				of, err := meta.Accessor(object)
				if err != nil {
					return err
				}
				got[of.GetName()] = of.GetResourceVersion()
			}
			if !maps.Equal(want, got) {
				return fmt.Errorf("%d in the list, %d in the cache, and not the same", len(want), len(got))
			}
			if told[name].Load() != int64(len(want)) {
				return fmt.Errorf("its handlers were told of %d, there are %d", told[name].Load(), len(want))
			}
			return nil
		})
		holds(fmt.Sprintf("the informer in %s holds what a list says %s", name, when), err)
	}
}
