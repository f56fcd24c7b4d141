// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/version"
)

const (
	hostsResource    = "hosts"
	releasesResource = "releases"
	rolloutsResource = "rollouts"
	leasesResource   = "leases"
)

// scheme has the types of NixFleet and nothing else.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(nfv1.AddToScheme(s))
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}

// factory makes clients from the flags.
type factory struct {
	config  *genericclioptions.ConfigFlags
	streams Streams
}

// api is the part of the Kubernetes API that the commands read.
type api struct {
	fleet  rest.Interface
	leases rest.Interface
	// namespace is that of the flags, or of the kubeconfig's context.
	namespace string
	// namespaceGiven says that a flag named it.
	namespaceGiven bool
	config         *rest.Config
}

func (f *factory) api() (*api, error) {
	config, err := f.config.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w (set KUBECONFIG, or give --kubeconfig)", err)
	}
	namespace, _, err := f.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.UserAgent = "kubectl-nixfleet/" + version.Version
	own := rest.CopyConfig(config)
	own.APIPath, own.GroupVersion = "/apis", &nfv1.GroupVersion
	own.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	fleet, err := rest.RESTClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	coordination, err := coordinationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig: %w", err)
	}
	return &api{fleet: fleet, leases: coordination.RESTClient(), namespace: namespace, namespaceGiven: *f.config.Namespace != "", config: config}, nil
}

// scope is what a command looks at.
type scope struct {
	// namespace is empty for all.
	namespace string
	// selector is a label selector; empty for everything.
	selector string
	// name is the one object to look at; empty for all.
	name string
}

func (s scope) modify(options *metav1.ListOptions) {
	options.LabelSelector = s.selector
	if s.name != "" {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", s.name).String()
	}
}

func (a *api) hosts(s scope) source {
	return source{hostsResource, cache.NewFilteredListWatchFromClient(a.fleet, hostsResource, s.namespace, s.modify), &nfv1.Host{}}
}

func (a *api) releases(s scope) source {
	return source{releasesResource, cache.NewFilteredListWatchFromClient(a.fleet, releasesResource, s.namespace, s.modify), &nfv1.Release{}}
}

func (a *api) rollouts(s scope) source {
	return source{rolloutsResource, cache.NewFilteredListWatchFromClient(a.fleet, rolloutsResource, s.namespace, s.modify), &nfv1.Rollout{}}
}

// leasesOf are the Leases that the host controller labels as those of hosts.
func (a *api) leasesOf(s scope) source {
	only := scope{namespace: s.namespace, selector: nfv1.GroupName + "/host"}
	return source{leasesResource, cache.NewFilteredListWatchFromClient(a.leases, leasesResource, s.namespace, only.modify), &coordinationv1.Lease{}}
}

// list reads all objects of a source into a typed list.
func list[L runtime.Object](ctx context.Context, s source) (L, error) {
	var none L
	object, err := s.lister.ListWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		return none, explain(s.resource, err)
	}
	typed, ok := object.(L)
	if !ok {
		return none, fmt.Errorf("list %s: the server answered with %T", s.resource, object)
	}
	return typed, nil
}

// explain adds to an error of the API what to do about it.
func explain(resource string, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("list %s: %w (NixFleet is not installed there, or this is the wrong context: kubectl config current-context)", resource, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("list %s: %w (ask for the right to get, list and watch %s)", resource, err, resource)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("list %s: %w (the credentials of your kubeconfig are not valid any more)", resource, err)
	case utilnet.IsConnectionRefused(err):
		return fmt.Errorf("list %s: %w (nothing listens there: is this the right kubeconfig, and does the control plane run?)", resource, err)
	default:
		return fmt.Errorf("list %s: %w", resource, err)
	}
}
