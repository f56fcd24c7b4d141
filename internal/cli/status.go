// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/cli/view"
)

const statusLong = `Shows the hosts of a namespace: what they run, what they are asked to run, and
whether they are online, healthy and up to date. With names of hosts it shows
everything about each, its last attempts, and why it is not up to date.

LAST-SEEN is when the API server last heard of the host's agent.`

const statusExamples = `  # All hosts of the namespace
  kubectl nixfleet status

  # The web servers of all namespaces, as they change
  kubectl nixfleet status -A -l role=web --watch

  # Why is this host not up to date?
  kubectl nixfleet status web-01`

const wideOutput = "wide"

// statusOptions are the flags and arguments of status.
type statusOptions struct {
	*factory

	names         []string
	selector      string
	allNamespaces bool
	watch         bool
	staleAfter    time.Duration
	format        *genericclioptions.PrintFlags
}

func newStatus(f *factory) *cobra.Command {
	o := &statusOptions{factory: f, staleAfter: 10 * time.Minute, format: genericclioptions.NewPrintFlags("")}
	cmd := &cobra.Command{
		Use:     "status [HOST...]",
		Short:   "Show the fleet, or everything about a host",
		Long:    statusLong,
		Example: statusExamples,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: completeHosts(f),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.selector, "selector", "l", "", "Label selector of the hosts to show, such as role=web")
	flags.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Show the hosts of all namespaces")
	flags.BoolVarP(&o.watch, "watch", "w", false, "Go on and show changes until interrupted")
	flags.DurationVar(&o.staleAfter, "stale-after", o.staleAfter, "Point out hosts that were not seen for so long; 0 for never")
	o.format.AddFlags(cmd)
	if output := flags.Lookup("output"); output != nil {
		output.Usage = "Output format. One of: (" + strings.Join(append(o.format.AllowedFormats(), wideOutput), ", ") + ")."
	}
	return cmd
}

func (o *statusOptions) validate() error {
	if o.staleAfter < 0 {
		return usagef("--stale-after %s is negative", o.staleAfter)
	}
	if _, err := labels.Parse(o.selector); err != nil {
		return usagef("--selector %q: %w", o.selector, err)
	}
	if len(o.names) > 0 && (o.selector != "" || o.allNamespaces) {
		return usagef("names of hosts cannot be given together with --selector or --all-namespaces")
	}
	if !o.asText() {
		if o.watch {
			return usagef("--watch cannot be combined with -o %s; use: kubectl get hosts --watch -o %s", *o.format.OutputFormat, *o.format.OutputFormat)
		}
		if _, err := o.format.ToPrinter(); err != nil {
			return usagef("%w", err)
		}
	}
	return nil
}

// asText says whether the output is ours, not that of a printer of kubectl.
func (o *statusOptions) asText() bool {
	return (*o.format.OutputFormat == "" && *o.format.TemplatePrinterFlags.TemplateArgument == "") || o.wide()
}

func (o *statusOptions) wide() bool { return *o.format.OutputFormat == wideOutput }

func (o *statusOptions) scope(a *api) scope {
	s := scope{namespace: a.namespace, selector: o.selector}
	if o.allNamespaces {
		s.namespace = ""
	}
	if len(o.names) == 1 {
		s.name = o.names[0]
	}
	return s
}

func (o *statusOptions) view(width int) view.Options {
	return view.Options{
		Now: o.streams.Clock.Now(), Width: width, Color: width > 0 && !o.streams.NoColor,
		Wide: o.wide(), Namespaces: o.allNamespaces, StaleAfter: o.staleAfter,
	}
}

func (o *statusOptions) run(ctx context.Context) error {
	a, err := o.api()
	if err != nil {
		return err
	}
	if o.watch {
		return o.follow(ctx, a)
	}
	hosts, err := list[*nfv1.HostList](ctx, a.hosts(o.scope(a)))
	if err != nil {
		return err
	}
	if err := o.choose(hosts, a.namespace); err != nil {
		return err
	}
	if !o.asText() {
		return o.printObjects(hosts)
	}
	state, err := o.readRest(ctx, a)
	if err != nil {
		return err
	}
	for i := range hosts.Items {
		state.hosts = append(state.hosts, &hosts.Items[i])
	}
	return write(o.streams.Out, o.render(state, o.view(newScreen(o.streams.Out).width())))
}

// choose keeps the hosts that were named and complains about names without a Host.
func (o *statusOptions) choose(hosts *nfv1.HostList, namespace string) error {
	if len(o.names) == 0 {
		return nil
	}
	hosts.Items = slices.DeleteFunc(hosts.Items, func(h nfv1.Host) bool { return !slices.Contains(o.names, h.Name) })
	var errs []error
	for _, name := range o.names {
		if !slices.ContainsFunc(hosts.Items, func(h nfv1.Host) bool { return h.Name == name }) {
			errs = append(errs, fmt.Errorf("there is no Host %q in namespace %q (kubectl get hosts -A shows all)", name, namespace))
		}
	}
	return errors.Join(errs...)
}

// printObjects prints as kubectl does: one object, or a List of v1.
func (o *statusOptions) printObjects(hosts *nfv1.HostList) error {
	printer, err := o.format.ToPrinter()
	if err != nil {
		return err
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}}}
	for i := range hosts.Items {
		// A server leaves the kind out in lists.
		hosts.Items[i].SetGroupVersionKind(nfv1.GroupVersion.WithKind("Host"))
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&hosts.Items[i])
		if err != nil {
			return fmt.Errorf("print Host %s: %w", hosts.Items[i].Name, err)
		}
		list.Items = append(list.Items, unstructured.Unstructured{Object: object})
	}
	if len(o.names) == 1 {
		return printer.PrintObj(&list.Items[0], o.streams.Out)
	}
	return printer.PrintObj(list, o.streams.Out)
}

// fleetState is all that status shows.
type fleetState struct {
	hosts    []*nfv1.Host
	leases   []*coordinationv1.Lease
	rollouts []nfv1.Rollout
}

// readRest reads what is shown beside the hosts.
func (o *statusOptions) readRest(ctx context.Context, a *api) (fleetState, error) {
	var state fleetState
	leases, err := list[*coordinationv1.LeaseList](ctx, a.leasesOf(o.scope(a)))
	if err != nil {
		return state, err
	}
	for i := range leases.Items {
		state.leases = append(state.leases, &leases.Items[i])
	}
	if len(o.names) > 0 {
		rollouts, err := list[*nfv1.RolloutList](ctx, a.rollouts(scope{namespace: a.namespace}))
		if err != nil {
			return state, err
		}
		state.rollouts = rollouts.Items
	}
	return state, nil
}

func (o *statusOptions) render(state fleetState, v view.Options) string {
	members := state.members()
	if len(members) == 0 {
		return "No hosts found.\n"
	}
	if len(o.names) == 0 {
		return view.Fleet(members, v)
	}
	var parts []string
	for _, m := range members {
		parts = append(parts, view.Host(m, state.rollouts, v))
	}
	return strings.Join(parts, "\n")
}

func (s fleetState) members() []view.Member {
	seen := make(map[types.NamespacedName]time.Time, len(s.leases))
	for _, lease := range s.leases {
		seen[types.NamespacedName{Namespace: lease.Namespace, Name: lease.Name}] = view.LastSeen(lease)
	}
	members := make([]view.Member, 0, len(s.hosts))
	for _, h := range s.hosts {
		at := seen[types.NamespacedName{Namespace: h.Namespace, Name: nfv1.LeaseName(h.Name)}]
		members = append(members, view.Member{Host: h, LastSeen: at})
	}
	view.SortMembers(members)
	return members
}
