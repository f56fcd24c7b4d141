// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

const (
	// SystemNamespace is where NixFleet's service accounts are.
	SystemNamespace = "nixfleet-system"

	// ManagerUser is the user name of the manager.
	ManagerUser = "system:serviceaccount:" + SystemNamespace + ":" + managerAccount
	// AgentUser is the user name that the gateway writes as, for all hosts.
	AgentUser = "system:serviceaccount:" + SystemNamespace + ":nixfleet-agent"

	managerAccount = "nixfleet-manager"

	// setupTimeout bounds what follows the start of the API server, which envtest
	// bounds itself.
	setupTimeout = time.Minute
	// serverTimeout is long because several test packages may share a small machine.
	serverTimeout = 2 * time.Minute
)

// Env is a running API server. Its fields are not to be changed; copy Config to adapt it.
type Env struct {
	// Config is that of a cluster administrator.
	Config *rest.Config
	// Client acts as the cluster administrator. It reads from the server, not a cache.
	Client client.Client
	// Scheme knows Kubernetes' own kinds and those of NixFleet.
	Scheme *runtime.Scheme

	managerConfig *rest.Config
	server        *envtest.Environment
}

// Start starts an API server and stops it when tb ends. In a Ginkgo suite, tb is
// GinkgoTB() of BeforeSuite.
func Start(tb testing.TB) *Env {
	tb.Helper()
	e, err := start(context.Background())
	if e != nil {
		tb.Cleanup(func() {
			if err := e.stop(); err != nil {
				tb.Errorf("stop the test API server: %v", err)
			}
		})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// Run is for TestMain: it starts an API server, hands it to use, runs the tests and
// returns the exit code.
//
//	func TestMain(m *testing.M) { os.Exit(testenv.Run(m, func(e *testenv.Env) { env = e })) }
func Run(m *testing.M, use func(*Env)) (code int) {
	e, err := start(context.Background())
	if e != nil {
		defer func() {
			if err := e.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop the test API server:", err)
				code = 1
			}
		}()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(e)
	return m.Run()
}

// Namespace makes a fresh namespace and returns its name. It panics if it cannot: no
// test can go on without, and it does not know which one called.
func (e *Env) Namespace(ctx context.Context) string {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := e.Client.Create(ctx, namespace); err != nil {
		panic(fmt.Errorf("make a namespace for the test: %w", err))
	}
	return namespace.Name
}

// ManagerConfig acts as the manager, with a token of its service account and the rights
// that config/rbac grants it. It impersonates nobody, so that the gateway can.
func (e *Env) ManagerConfig() *rest.Config { return rest.CopyConfig(e.managerConfig) }

// As acts as a user of these groups, by impersonation.
func (e *Env) As(user string, groups ...string) *rest.Config {
	config := rest.CopyConfig(e.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}

// ClientFor is a client for a configuration, without a cache. It asks the server for
// nothing by itself: what the server refuses, the test sees.
func (e *Env) ClientFor(config *rest.Config) (client.Client, error) {
	return client.New(config, client.Options{Scheme: e.Scheme, Mapper: e.Client.RESTMapper()})
}

func (e *Env) stop() error { return e.server.Stop() }

// start returns an Env also with an error, if there is something to stop.
func start(ctx context.Context) (*Env, error) {
	assets, err := findAssets()
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), nfv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	e := &Env{Scheme: scheme, server: newServer(assets, scheme)}
	if e.Config, err = e.server.Start(); err != nil {
		return e, fmt.Errorf("start the test API server: %w", err)
	}
	// Tests are not to be slowed down by the client's own limits.
	e.Config.QPS = -1
	if e.Client, err = client.New(e.Config, client.Options{Scheme: scheme}); err != nil {
		return e, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, setupTimeout, fmt.Errorf("not done after %s", setupTimeout))
	defer cancel()
	if err := e.install(ctx); err != nil {
		return e, fmt.Errorf("prepare the test API server: %w", err)
	}
	if e.managerConfig, err = e.managerToken(ctx); err != nil {
		return e, fmt.Errorf("prepare the test API server: %w", err)
	}
	return e, nil
}

func newServer(assets string, scheme *runtime.Scheme) *envtest.Environment {
	server := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		Scheme:                   scheme,
		ControlPlaneStartTimeout: serverTimeout,
		ControlPlaneStopTimeout:  serverTimeout,
	}
	// Clusters differ in these two. With the plugin, rights on finalizers are checked;
	// without the gate, some fields of a Lease would be dropped before policies see them.
	server.ControlPlane.GetAPIServer().Configure().
		Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement").
		Append("feature-gates", "CoordinatedLeaderElection=true").
		Append("runtime-config", "coordination.k8s.io/v1beta1=true")
	return server
}

func (e *Env) managerToken(ctx context.Context) (*rest.Config, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: managerAccount}}
	request := &authenticationv1.TokenRequest{}
	if err := e.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return nil, fmt.Errorf("token of %s: %w", ManagerUser, err)
	}
	config := rest.AnonymousClientConfig(e.Config)
	config.BearerToken = request.Status.Token
	return config, nil
}
