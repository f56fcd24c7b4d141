// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package apiserver

import (
	"errors"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	generic "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

// serverName is what the API server calls itself in identity leases.
const serverName = "nixfleet-control-plane"

// configs are those of the three servers that answer for one another, in the
// order of delegation: aggregator, native resources, CRDs.
type configs struct {
	aggregator *aggregator.Config
	native     *generic.Config
	crds       *apiextensions.Config
}

func newConfigs(o options.CompletedOptions) (*configs, error) {
	base, informers, storage, err := generic.BuildGenericConfig(
		o,
		[]*runtime.Scheme{legacyscheme.Scheme, apiextensions.Scheme, aggregatorscheme.Scheme},
		controlplane.DefaultGenericAPIResourceConfigSource(),
		openapi.GetOpenAPIDefinitions,
		nil,
	)
	if err != nil {
		return nil, err
	}
	resolver := webhook.NewDefaultServiceResolver()
	native, initializers, err := generic.CreateConfig(o, base, informers, nil, storage, resolver, nil)
	if err != nil {
		return nil, err
	}
	authInfo := webhook.NewDefaultAuthenticationInfoResolverWrapper(
		native.ProxyTransport, native.Generic.EgressSelector, native.Generic.LoopbackClientConfig, native.Generic.TracerProvider)
	// One server, so that a CRD is established as soon as it is accepted: the
	// wait is for other servers of a cluster to notice it.
	const servers = 1
	crds, err := generic.CreateAPIExtensionsConfig(*native.Generic, native.VersionedInformers, initializers, o, servers, resolver, authInfo)
	if err != nil {
		return nil, err
	}
	aggregated, err := generic.CreateAggregatorConfig(
		*native.Generic, o, native.VersionedInformers, resolver, native.ProxyTransport, native.Extra.PeerProxy, initializers)
	if err != nil {
		return nil, err
	}
	// Extension API servers run as pods behind a Service; there are none.
	aggregated.ExtraConfig.DisableRemoteAvailableConditionController = true
	return &configs{aggregator: aggregated, native: native, crds: crds}, nil
}

// chain builds the three servers and returns the first of them.
func (c *configs) chain() (*aggregator.APIAggregator, error) {
	native := c.native.Complete()
	notFound := notfoundhandler.New(native.Generic.Serializer, filters.NoMuxAndDiscoveryIncompleteKey)
	crdServer, err := c.crds.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("server of custom resources: %w", err)
	}
	crdResource := apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	if !c.crds.GenericConfig.MergedResourceConfig.ResourceEnabled(crdResource) {
		return nil, errors.New("custom resource definitions are switched off")
	}

	nativeServer, err := native.New(serverName, crdServer.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("server of native resources: %w", err)
	}
	if err := installResources(native, nativeServer); err != nil {
		return nil, err
	}
	first, err := generic.CreateAggregatorServer(
		c.aggregator.Complete(),
		nativeServer.GenericAPIServer,
		crdServer.Informers.Apiextensions().V1().CustomResourceDefinitions(),
		true,
		generic.DefaultGenericAPIServicePriorities(),
	)
	if err != nil {
		return nil, fmt.Errorf("aggregating server: %w", err)
	}
	return first, nil
}

func installResources(config generic.CompletedConfig, server *generic.Server) error {
	client, err := kubernetes.NewForConfig(config.Generic.LoopbackClientConfig)
	if err != nil {
		return err
	}
	providers, err := config.GenericStorageProviders(client.Discovery())
	if err != nil {
		return fmt.Errorf("storage of native resources: %w", err)
	}
	if err := server.InstallAPIs(providers...); err != nil {
		return fmt.Errorf("install native resources: %w", err)
	}
	return nil
}
