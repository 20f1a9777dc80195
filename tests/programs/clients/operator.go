// An operator as kubebuilder writes them: a kind of its own with finalizer, children, status, events, webhooks, and metrics that ask who may see them.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	certutil "k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const (
	ashore  = "coracle.test/ashore"
	hooks   = 39443
	metrics = 39444
)

type reconciler struct {
	client.Client
	events events.EventRecorder
}

// Reconcile makes the ships that are missing, sinks those that are too many, and says how many there are.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	fleet := &Fleet{}
	if err := r.Get(ctx, request.NamespacedName, fleet); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if fleet.DeletionTimestamp != nil {
		log := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fleet.Name + "-log", Namespace: fleet.Namespace}}
		if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, log, func() error { log.Data = map[string]string{"ended": "yes"}; return nil }); err != nil {
			return ctrl.Result{}, err
		}
		controllerutil.RemoveFinalizer(fleet, ashore)
		return ctrl.Result{}, r.Update(ctx, fleet)
	}
	if controllerutil.AddFinalizer(fleet, ashore) {
		return ctrl.Result{}, r.Update(ctx, fleet)
	}
	for i := range fleet.Spec.Ships {
		ship := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", fleet.Name, i), Namespace: fleet.Namespace}}
		done, err := controllerutil.CreateOrUpdate(ctx, r.Client, ship, func() error {
			ship.Labels = map[string]string{"fleet": fleet.Name}
			ship.Data = map[string]string{"course": "west"}
			return controllerutil.SetControllerReference(fleet, ship, r.Scheme())
		})
		if err != nil {
			return ctrl.Result{}, err
		}
		if done == controllerutil.OperationResultCreated {
			r.events.Eventf(fleet, ship, corev1.EventTypeNormal, "Launched", "Launch", "%s swims", ship.Name)
		}
	}
	ships := &corev1.ConfigMapList{}
	if err := r.List(ctx, ships, client.InNamespace(fleet.Namespace), client.MatchingLabels{"fleet": fleet.Name}); err != nil {
		return ctrl.Result{}, err
	}
	for i := range ships.Items {
		var number int
		if _, err := fmt.Sscanf(ships.Items[i].Name, fleet.Name+"-%d", &number); err == nil && number >= fleet.Spec.Ships {
			if err := r.Delete(ctx, &ships.Items[i]); client.IgnoreNotFound(err) != nil {
				return ctrl.Result{}, err
			}
		}
	}
	before := fleet.DeepCopyObject().(*Fleet)
	fleet.Status.Afloat = len(ships.Items)
	meta.SetStatusCondition(&fleet.Status.Conditions, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, Reason: "Swims", Message: "all swim", ObservedGeneration: fleet.Generation,
	})
	return ctrl.Result{}, r.Status().Patch(ctx, fleet, client.MergeFrom(before))
}

type hook struct{}

func (hook) Default(_ context.Context, fleet *Fleet) error {
	if fleet.Spec.Ships == 0 {
		fleet.Spec.Ships = 2
	}
	return nil
}

func (hook) ValidateCreate(_ context.Context, fleet *Fleet) (admission.Warnings, error) {
	if fleet.Spec.Ships > 10 {
		return nil, errors.New("the harbour has room for ten")
	}
	return nil, nil
}

func (h hook) ValidateUpdate(ctx context.Context, _, fleet *Fleet) (admission.Warnings, error) {
	return h.ValidateCreate(ctx, fleet)
}

func (hook) ValidateDelete(context.Context, *Fleet) (admission.Warnings, error) { return nil, nil }

func operator(ctx context.Context, config *rest.Config) {
	log.SetLogger(logr.Discard())
	scheme.Scheme.AddKnownTypes(fleets, &Fleet{}, &FleetList{})
	metav1.AddToGroupVersion(scheme.Scheme, fleets)
	certificate, err := begin(ctx, config, scheme.Scheme)
	if !holds("the operator begins", err) {
		return
	}
	own, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if !holds("a client of its kind", err) {
		return
	}
	if !holds("its webhooks are known", register(ctx, own, certificate)) {
		return
	}
	judge(ctx, own)
	scrape(ctx, own)
}

// begin starts the operator; what is returned is the authority of its webhooks.
func begin(ctx context.Context, config *rest.Config, kinds *runtime.Scheme) ([]byte, error) {
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return nil, err
	}
	dir := os.Getenv("CLIENTS_DIR")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "tls.crt"), certificate, 0o600), os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600)); err != nil {
		return nil, err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: kinds, LeaderElection: true, LeaderElectionID: "fleets", LeaderElectionNamespace: "default",
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: hooks, CertDir: dir}),
		Metrics: metricsserver.Options{
			BindAddress: fmt.Sprintf("127.0.0.1:%d", metrics), SecureServing: true, CertDir: dir, FilterProvider: filters.WithAuthenticationAndAuthorization,
		},
	})
	if err != nil {
		return nil, err
	}
	worker := &reconciler{Client: manager.GetClient(), events: manager.GetEventRecorder("fleets")}
	if err := ctrl.NewControllerManagedBy(manager).For(&Fleet{}).Owns(&corev1.ConfigMap{}).Complete(worker); err != nil {
		return nil, err
	}
	if err := ctrl.NewWebhookManagedBy(manager, &Fleet{}).WithDefaulter(hook{}).WithValidator(hook{}).Complete(); err != nil {
		return nil, err
	}
	go func() {
		if err := manager.Start(ctx); err != nil {
			holds("the operator goes on", err)
		}
	}()
	return certificate, until(ctx, 30*time.Second, func() error { return manager.GetWebhookServer().StartedChecker()(nil) })
}

func register(ctx context.Context, own client.Client, authority []byte) error {
	url := func(path string) admissionv1.WebhookClientConfig {
		full := fmt.Sprintf("https://127.0.0.1:%d/%s-coracle-test-v1-fleet", hooks, path)
		return admissionv1.WebhookClientConfig{URL: &full, CABundle: authority}
	}
	none := admissionv1.SideEffectClassNone
	rules := []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
		Rule:       admissionv1.Rule{APIGroups: []string{fleets.Group}, APIVersions: []string{"v1"}, Resources: []string{"fleets"}},
	}}
	return errors.Join(
		own.Create(ctx, &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "fleets"}, Webhooks: []admissionv1.MutatingWebhook{{
			Name: "defaults.coracle.test", ClientConfig: url("mutate"), Rules: rules, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}}}),
		own.Create(ctx, &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "fleets"}, Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "rules.coracle.test", ClientConfig: url("validate"), Rules: rules, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}}}),
	)
}

func judge(ctx context.Context, own client.Client) {
	const limit = 20 * time.Second
	fleet := &Fleet{ObjectMeta: metav1.ObjectMeta{Name: "armada", Namespace: "default"}}
	at := client.ObjectKeyFromObject(fleet)
	// A configuration of webhooks is heeded soon, not at once: here as upstream.
	err := until(ctx, limit, func() error {
		many := &Fleet{ObjectMeta: metav1.ObjectMeta{Name: "many", Namespace: "default"}, Spec: FleetSpec{Ships: 11}}
		if err := own.Create(ctx, many, client.DryRunAll); !apierrors.IsForbidden(err) {
			return fmt.Errorf("eleven ships: %v", err)
		}
		return nil
	})
	holds("its validation refuses", err)
	if err := own.Create(ctx, fleet); !holds("a fleet is made", err) {
		return
	}
	if fleet.Spec.Ships != 2 {
		err = fmt.Errorf("%d ships", fleet.Spec.Ships)
	}
	holds("its defaults are set", err)
	afloat := func(number int) error {
		return until(ctx, limit, func() error {
			if err := own.Get(ctx, at, fleet); err != nil {
				return err
			}
			ready := meta.FindStatusCondition(fleet.Status.Conditions, "Ready")
			if fleet.Status.Afloat != number || ready == nil || ready.ObservedGeneration != fleet.Generation {
				return fmt.Errorf("status %+v of generation %d", fleet.Status, fleet.Generation)
			}
			return nil
		})
	}
	holds("its children are there, and its status says so", afloat(2))
	fleet.Spec.Ships = 5
	err = own.Update(ctx, fleet)
	if err == nil {
		err = afloat(5)
	}
	holds("a change of it is followed", err)
	child := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "armada-3", Namespace: "default"}}
	childAt := client.ObjectKeyFromObject(child)
	err = own.Get(ctx, childAt, child)
	was := child.UID
	if err == nil {
		err = own.Delete(ctx, child)
	}
	if err == nil {
		err = until(ctx, limit, func() error {
			if err := own.Get(ctx, childAt, child); err != nil {
				return err
			}
			if child.UID == was {
				return errors.New("the old one")
			}
			return nil
		})
	}
	holds("a child that is taken away comes back", err)
	err = until(ctx, limit, func() error {
		told := &eventsv1.EventList{}
		if err := own.List(ctx, told, client.InNamespace("default")); err != nil {
			return err
		}
		for _, event := range told.Items {
			if event.Reason == "Launched" && event.Regarding.Name == fleet.Name && event.Action == "Launch" {
				return nil
			}
		}
		return errors.New("no Event")
	})
	holds("its Events are told", err)
	err = own.Delete(ctx, fleet)
	if err == nil {
		err = until(ctx, limit, func() error {
			if err := own.Get(ctx, at, fleet); !apierrors.IsNotFound(err) {
				return fmt.Errorf("the fleet: %v", err)
			}
			if err := own.Get(ctx, childAt, child); !apierrors.IsNotFound(err) {
				return fmt.Errorf("its child: %v", err)
			}
			return own.Get(ctx, client.ObjectKey{Namespace: "default", Name: "armada-log"}, child)
		})
	}
	holds("it ends by its finalizer, and its children with it", err)
}

// scrape asks for the operator's metrics as who may see them, and as who may not: it asks the API server by reviews.
func scrape(ctx context.Context, own client.Client) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "scraper", Namespace: "default"}}
	other := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}}
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	as := func(account *corev1.ServiceAccount, want int) error {
		token := &authenticationv1.TokenRequest{}
		if err := own.SubResource("token").Create(ctx, account, token); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/metrics", metrics), nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+token.Status.Token)
		answer, err := insecure.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		said, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != want {
			return fmt.Errorf("%s, not %d: %.200s", answer.Status, want, said)
		}
		return nil
	}
	holds("its metrics are for who may see them", as(account, http.StatusOK))
	holds("and for nobody else", as(other, http.StatusForbidden))
}
