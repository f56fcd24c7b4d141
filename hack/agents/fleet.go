// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/agent"
	"github.com/nixfleet/nixfleet/internal/agent/simulated"
	"github.com/nixfleet/nixfleet/internal/attempt"
	"github.com/nixfleet/nixfleet/internal/bootloader"
	"github.com/nixfleet/nixfleet/internal/identity"
	"github.com/nixfleet/nixfleet/internal/nix"
)

// registrations is how many Hosts are made at once.
const registrations = 16

// label marks the Hosts of a run, and the Rollout selects by it.
const label = "nixfleet.io/simulated"

// fleet is the agents and what they are about.
type fleet struct {
	options

	client client.WithWatch
	roots  *x509.CertPool
	dir    string
	out    io.Writer
	log    *slog.Logger
	times  times
}

func (f *fleet) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 500, 500
	scheme := runtime.NewScheme()
	if err := errors.Join(nfv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		return err
	}
	f.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return err
}

func (f *fleet) say(format string, args ...any) {
	// Nobody is left to tell that it cannot be written.
	_, _ = fmt.Fprintf(f.out, format+"\n", args...)
}

func (f *fleet) run(ctx context.Context) error {
	if !f.keep {
		defer f.remove(context.WithoutCancel(ctx))
	}
	begin := time.Now()
	hosts, err := f.register(ctx)
	if err != nil {
		return err
	}
	f.say("%d hosts registered in %s", len(hosts), time.Since(begin).Round(time.Millisecond))
	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { f.times.watch(working, f) })
	for _, h := range hosts {
		wg.Go(func() { h.run(working) })
	}
	if err := f.await(ctx, "online", f.allOnline); err != nil {
		return err
	}
	if err := f.rollOut(ctx); err != nil {
		return err
	}
	f.report(ctx)
	if f.keep {
		f.say("Interrupt to end. The objects stay: --keep")
		<-ctx.Done()
	}
	return nil
}

// member is an agent with its host.
type member struct {
	machine *agent.Machine
	client  *agent.Client
	fleet   *fleet
}

func (m *member) run(ctx context.Context) {
	agent.Serve(ctx, m.machine, m.client, m.fleet.heartbeat, m.machine.Log)
}

func (f *fleet) register(ctx context.Context) ([]*member, error) {
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}}
	if err := f.client.Create(ctx, space); client.IgnoreAlreadyExists(err) != nil {
		return nil, err
	}
	members := make([]*member, f.agents)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(registrations)
	for i := range members {
		group.Go(func() (err error) {
			members[i], err = f.newMember(gctx, fmt.Sprintf("%s-%04d", f.prefix, i))
			return err
		})
	}
	return members, group.Wait()
}

// newMember makes a host, its Host and its agent.
func (f *fleet) newMember(ctx context.Context, name string) (*member, error) {
	state := filepath.Join(f.dir, name)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	key, err := identity.LoadOrCreateKey(filepath.Join(state, "identity.key"))
	if err != nil {
		return nil, err
	}
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		return nil, err
	}
	certificate, err := identity.ClientCertificate(key)
	if err != nil {
		return nil, err
	}
	object := &nfv1.Host{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name, Labels: map[string]string{label: f.prefix}},
		Spec: nfv1.HostSpec{
			Platform: nfv1.PlatformX8664Linux, Lifecycle: nfv1.LifecycleActive,
			Identity: nfv1.HostIdentity{PublicKeys: []string{pin.String()}},
		},
	}
	if err := f.client.Create(ctx, object); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	c := clock.RealClock{}
	host := simulated.NewHost(name, storePath(name, "installed"), f.behavior, c)
	host.Fetching = f.times.fetching
	return &member{fleet: f, client: agent.NewClient(f.server, f.namespace, name, certificate, f.roots), machine: &agent.Machine{
		Activator: host, Profile: host, Source: host, Prober: host, Clock: c, Store: forgetful{},
		BootEntry: unverified,
		BootID:    "simulated",
		Base: attempt.Plan{
			Root: state, StateDir: state, Profile: filepath.Join(state, "profile"), Protection: attempt.ProtectionNone, Agent: "/simulated",
		},
		Info: nfv1.NodeInfo{AgentVersion: "simulated"},
		Log:  f.log.With("host", name),
	}}, nil
}

// forgetful keeps no journal: these agents are never started again.
type forgetful struct{}

func (forgetful) Save(agent.Journal) error { return nil }

func unverified(nix.StorePath) bootloader.Finding {
	return bootloader.Finding{Verdict: bootloader.Unverified, Message: "the host is simulated"}
}

// storePath is a made-up system.
func storePath(host, release string) nix.StorePath {
	return nix.StorePath(fmt.Sprintf("/nix/store/%032d-nixos-system-%s-%s", 0, host, release))
}

func (f *fleet) remove(ctx context.Context) {
	meta := metav1.ObjectMeta{Namespace: f.namespace, Name: f.release}
	err := errors.Join(
		client.IgnoreNotFound(f.client.Delete(ctx, &nfv1.Rollout{ObjectMeta: meta})),
		client.IgnoreNotFound(f.client.Delete(ctx, &nfv1.Release{ObjectMeta: meta})),
		f.client.DeleteAllOf(ctx, &nfv1.Host{}, client.InNamespace(f.namespace), client.MatchingLabels{label: f.prefix}))
	if err != nil {
		f.say("not everything could be removed: %v", err)
	}
}

func (f *fleet) key() types.NamespacedName {
	return types.NamespacedName{Namespace: f.namespace, Name: f.release}
}
