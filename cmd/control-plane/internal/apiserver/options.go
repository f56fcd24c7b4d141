// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package apiserver

import (
	"net"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/kubeapiserver/authorizer/modes"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
	certapproval "k8s.io/kubernetes/plugin/pkg/admission/certificates/approval"
	certsigning "k8s.io/kubernetes/plugin/pkg/admission/certificates/signing"
	certsubject "k8s.io/kubernetes/plugin/pkg/admission/certificates/subjectrestriction"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/pki"
)

const (
	// issuer is the name in service account tokens that clients of any
	// cluster expect by default.
	issuer = "https://kubernetes.default.svc"

	// watchGrace is how long open watches may take to end at shutdown.
	watchGrace = 2 * time.Second
)

// Config is what the API server needs from its surroundings.
type Config struct {
	// Listener accepts the connections. The server closes it.
	Listener net.Listener
	// EtcdEndpoint is where etcd listens.
	EtcdEndpoint string
	// Certificates are the files of package pki.
	Certificates *pki.Bundle
}

// newOptions turns cfg into the options of the generic control plane.
func newOptions(cfg Config) *options.Options {
	o := options.NewOptions()
	o.Etcd.StorageConfig.Transport.ServerList = []string{cfg.EtcdEndpoint}
	serve(o, cfg)
	authenticate(o, cfg.Certificates)

	o.Authorization.Modes = []string{modes.ModeRBAC}
	o.Admission.GenericAdmission.DefaultOffPlugins = pluginsOff()
	// Profiles of a process that holds every key are not for the network.
	o.Features.EnableProfiling = false
	return o
}

func serve(o *options.Options, cfg Config) {
	address := cfg.Listener.Addr().(*net.TCPAddr)
	o.SecureServing.Listener = cfg.Listener
	o.SecureServing.BindAddress = address.IP
	o.SecureServing.BindPort = address.Port
	o.SecureServing.MinTLSVersion = "VersionTLS13"
	o.SecureServing.ServerCert.CertKey.CertFile = cfg.Certificates.APIServer.CertFile
	o.SecureServing.ServerCert.CertKey.KeyFile = cfg.Certificates.APIServer.KeyFile

	// Left empty, it would be looked up from the routing table, which a
	// machine without network does not have.
	o.GenericServerRunOptions.AdvertiseAddress = address.IP
	if address.IP.IsUnspecified() {
		o.GenericServerRunOptions.AdvertiseAddress = net.IPv4(127, 0, 0, 1)
	}
	o.GenericServerRunOptions.ShutdownWatchTerminationGracePeriod = watchGrace
}

func authenticate(o *options.Options, certificates *pki.Bundle) {
	o.Authentication.ClientCert.ClientCA = certificates.CA.CertFile
	o.Authentication.ServiceAccounts.Issuers = []string{issuer}
	o.Authentication.ServiceAccounts.KeyFiles = []string{certificates.ServiceAccountKey}
	o.Authentication.ServiceAccounts.OptionalTokenGetter = newTokenGetter
	o.ServiceAccountSigningKeyFile = certificates.ServiceAccountKey
}

// pluginsOff is every admission plugin that Kubernetes knows but those that
// make sense without pods, nodes and volumes.
func pluginsOff() sets.Set[string] {
	on := sets.New(
		lifecycle.PluginName,
		serviceaccount.PluginName,
		resourcequota.PluginName,
		mutatingpolicy.PluginName,
		mutatingwebhook.PluginName,
		validatingpolicy.PluginName,
		validatingwebhook.PluginName,
		certapproval.PluginName,
		certsigning.PluginName,
		certsubject.PluginName,
	)
	return sets.New(kubeoptions.AllOrderedPlugins...).Difference(on)
}
