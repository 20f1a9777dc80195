// A kind of the operator's own, as kubebuilder would have it written.
package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var fleets = schema.GroupVersion{Group: "coracle.test", Version: "v1"}

// Fleet wants some ships, each a ConfigMap.
type Fleet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FleetSpec   `json:"spec,omitempty"`
	Status            FleetStatus `json:"status,omitempty"`
}

// FleetSpec is what is wanted.
type FleetSpec struct {
	Ships int `json:"ships,omitempty"`
}

// FleetStatus is what there is.
type FleetStatus struct {
	Afloat     int                `json:"afloat,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// FleetList is several.
type FleetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Fleet `json:"items"`
}

// DeepCopyObject is a copy that shares nothing.
func (f *Fleet) DeepCopyObject() runtime.Object {
	copied := &Fleet{TypeMeta: f.TypeMeta, Spec: f.Spec, Status: FleetStatus{Afloat: f.Status.Afloat}}
	f.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	for _, condition := range f.Status.Conditions {
		copied.Status.Conditions = append(copied.Status.Conditions, *condition.DeepCopy())
	}
	return copied
}

// DeepCopyObject is a copy that shares nothing.
func (l *FleetList) DeepCopyObject() runtime.Object {
	copied := &FleetList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	for i := range l.Items {
		copied.Items = append(copied.Items, *l.Items[i].DeepCopyObject().(*Fleet))
	}
	return copied
}
