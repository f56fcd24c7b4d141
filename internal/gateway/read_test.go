// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	testingclock "k8s.io/utils/clock/testing"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

func TestReadsShowTheHostWithoutManagedFields(t *testing.T) {
	key := newKey(t)
	h := start(t, nil)
	host := newHost(t, "web-01", "5", key)
	host.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "somebody"}}
	h.informer.Add(host)
	client := h.client(key, true)

	var got nfv1.Host
	if err := json.Unmarshal(h.do(client, http.MethodGet, hostsPath+"/web-01", nil, nil).body, &got); err != nil {
		t.Fatal(err)
	}
	want := host.DeepCopy()
	want.TypeMeta, want.ManagedFields = hostType(), nil
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("get (-want +got):\n%s", diff)
	}
	var list nfv1.HostList
	if err := json.Unmarshal(h.do(client, http.MethodGet, hostsPath+"?fieldSelector=metadata.name=web-01", nil, nil).body, &list); err != nil {
		t.Fatal(err)
	}
	if list.Kind != "HostList" || list.ResourceVersion != "5" || len(list.Items) != 1 || cmp.Diff(*want, list.Items[0]) != "" {
		t.Errorf("list is %+v", list)
	}
	if host.ManagedFields == nil || host.Kind != "" {
		t.Error("the object that the informer shares was changed")
	}
}

func TestReadsRefuseOtherEncodings(t *testing.T) {
	key := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", key))
	got := h.do(h.client(key, true), http.MethodGet, hostsPath+"/web-01", nil, http.Header{"Accept": {"application/vnd.kubernetes.protobuf"}})
	if got.code != http.StatusNotAcceptable {
		t.Errorf("answered %d, want 406", got.code)
	}
}

func TestWatchBeginsWithWhatIsNews(t *testing.T) {
	key := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", key))
	tests := map[string]struct {
		query string
		want  []string
	}{
		"no version":                   {"", []string{"ADDED 5"}},
		"version 0":                    {"&resourceVersion=0", []string{"ADDED 5"}},
		"the same version":             {"&resourceVersion=5", nil},
		"an older version":             {"&resourceVersion=4", []string{"MODIFIED 5"}},
		"a newer version":              {"&resourceVersion=900", []string{"MODIFIED 5"}},
		"initial events":               {"&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", []string{"ADDED 5", "BOOKMARK 5 end"}},
		"initial events, same version": {"&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5", []string{"ADDED 5", "BOOKMARK 5 end"}},
		"no initial events":            {"&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=5", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			events := h.events(ctx, h.client(key, true), watchPath+tt.query)
			// A change marks the end of what the beginning brought.
			marker := newHost(t, "web-01", "77", key)
			h.informer.Update(nil, marker)
			var got []string
			for {
				event := next(t, events)
				if event.Object.Metadata.ResourceVersion == "77" {
					break
				}
				text := event.Type + " " + event.Object.Metadata.ResourceVersion
				if event.Object.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true" {
					text += " end"
				}
				got = append(got, text)
			}
			h.informer.Update(nil, newHost(t, "web-01", "5", key))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWatchSendsABookmarkEveryMinute(t *testing.T) {
	key := newKey(t)
	clock := testingclock.NewFakeClock(time.Now())
	h := start(t, func(o *Options) { o.Clock = clock })
	h.informer.Add(newHost(t, "web-01", "5", key))
	events := h.events(t.Context(), h.client(key, true), watchPath)
	next(t, events)
	for range 3 {
		waitFor(t, eventually, "the stream to wait", clock.HasWaiters)
		clock.Step(time.Minute)
		if event := next(t, events); event.Type != "BOOKMARK" || event.Object.Kind != "Host" || event.Object.Metadata.ResourceVersion != "5" {
			t.Fatalf("got %+v, want a bookmark of version 5", event)
		}
	}
}

// TestWatchOutlivesTheTimeoutsOfItsEvents lets every deadline pass between two events.
func TestWatchOutlivesTheTimeoutsOfItsEvents(t *testing.T) {
	key := newKey(t)
	const short = 50 * time.Millisecond
	h := start(t, func(o *Options) { o.WriteTimeout, o.RequestTimeout, o.BookmarkInterval = short, short, 3*short })
	h.informer.Add(newHost(t, "web-01", "5", key))
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for beginning, query := range map[string]string{"with an event": "", "without": "&resourceVersion=5"} {
			t.Run(name+" that begins "+beginning, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				events := h.events(ctx, h.client(key, http2), watchPath+query)
				for range 4 {
					next(t, events)
				}
			})
		}
	}
}

func TestWatchEndsWhenAsked(t *testing.T) {
	key := newKey(t)
	clock := testingclock.NewFakeClock(time.Now())
	h := start(t, func(o *Options) { o.Clock = clock })
	h.informer.Add(newHost(t, "web-01", "5", key))
	events := h.events(t.Context(), h.client(key, true), watchPath+"&timeoutSeconds=30")
	next(t, events)
	waitFor(t, eventually, "the stream to wait", clock.HasWaiters)
	clock.Step(30 * time.Second)
	ended(t, events, eventually)
	waitFor(t, eventually, "the stream to be counted out", func() bool { return testutil.ToFloat64(h.gateway.metrics.streams) == 0 })
}

func TestShutdownEndsWatches(t *testing.T) {
	key := newKey(t)
	h := start(t, nil)
	h.informer.Add(newHost(t, "web-01", "5", key))
	events := h.events(t.Context(), h.client(key, true), watchPath)
	next(t, events)
	if err := h.waitStopped(); err != nil {
		t.Errorf("Start returned %v", err)
	}
	ended(t, events, eventually)
}

func TestStreamsOfOneHostAreLimited(t *testing.T) {
	key, other := newKey(t), newKey(t)
	h := start(t, func(o *Options) { o.StreamsPerHost = 2 })
	h.informer.Add(newHost(t, "web-01", "5", key))
	h.informer.Add(newHost(t, "web-02", "5", other))
	first, cancel := context.WithCancel(t.Context())
	defer cancel()
	next(t, h.events(first, h.client(key, true), watchPath))
	next(t, h.events(t.Context(), h.client(key, true), watchPath))
	got := h.do(h.client(key, true), http.MethodGet, watchPath, nil, nil)
	if got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("answered %d with Retry-After %q, want 429", got.code, got.header.Get("Retry-After"))
	}
	next(t, h.events(t.Context(), h.client(other, true), hostsPath+"?watch=true&fieldSelector=metadata.name=web-02"))
	cancel()
	waitFor(t, eventually, "the first stream to end", func() bool { return testutil.ToFloat64(h.gateway.metrics.streams) == 2 })
	next(t, h.events(t.Context(), h.client(key, true), watchPath))
}

func TestRequestsOfOneHostAreLimited(t *testing.T) {
	key, other, foreign := newKey(t), newKey(t), newKey(t)
	clock := testingclock.NewFakeClock(time.Now())
	h := start(t, func(o *Options) { o.Clock, o.RequestsPerSecond, o.Burst = clock, 1, 2 })
	h.informer.Add(newHost(t, "web-01", "5", key))
	h.informer.Add(newHost(t, "web-02", "5", other))
	get := func(name string, client *http.Client) int {
		return h.do(client, http.MethodGet, hostsPath+"/"+name, nil, nil).code
	}
	stranger := h.client(foreign, true)
	for range 5 { // A stranger cannot use up the share of a host.
		get("web-01", stranger)
	}
	client := h.client(key, true)
	got := []int{get("web-01", client), get("web-01", client), get("web-01", client), get("web-02", h.client(other, true))}
	clock.Step(time.Second)
	got = append(got, get("web-01", client))
	if diff := cmp.Diff([]int{200, 200, 429, 200, 200}, got); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// reflector runs client-go's reflector against the gateway until the test ends.
func reflector(t *testing.T, h *harness, config *rest.Config, watchList bool) toolscache.Store {
	t.Helper()
	config.APIPath = "/apis"
	config.GroupVersion = &nfv1.GroupVersion
	scheme := testScheme()
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	parameters := runtime.NewParameterCodec(scheme)
	selector := fields.OneTermEqualSelector("metadata.name", "web-01").String()
	request := func(options metav1.ListOptions) *rest.Request {
		options.FieldSelector = selector
		return client.Get().Namespace("fleet").Resource("hosts").VersionedParams(&options, parameters)
	}
	source := &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			if watchList {
				t.Error("the reflector lists, although it can watch from the start")
			}
			list := &nfv1.HostList{}
			return list, request(options).Do(ctx).Into(list)
		},
		WatchFuncWithContext: watchFunc(request),
	}
	store := toolscache.NewStore(toolscache.MetaNamespaceKeyFunc)
	var lw toolscache.ListerWatcher = source
	if !watchList {
		lw = toolscache.ToListWatcherWithWatchListSemantics(source, noWatchList{})
	}
	r := toolscache.NewReflectorWithOptions(lw, &nfv1.Host{}, store, toolscache.ReflectorOptions{Name: "agent"})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return store
}

// noWatchList says of a client that it does not know WatchList.
type noWatchList struct{}

func (noWatchList) IsWatchListSemanticsUnSupported() bool { return true }

func TestReflectorFollowsTheHost(t *testing.T) {
	for name, watchList := range map[string]bool{"with WatchList": true, "with list and watch": false} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t)
			h := start(t, nil)
			h.informer.Add(newHost(t, "web-01", "5", key))
			store := reflector(t, h, h.restConfig(key), watchList)
			holds := func(version string) func() bool {
				return func() bool {
					obj, found, _ := store.GetByKey("fleet/web-01")
					return found && obj.(*nfv1.Host).ResourceVersion == version
				}
			}
			waitFor(t, eventually, "the first version", holds("5"))
			for version := 6; version < 200; version++ {
				h.informer.Update(nil, newHost(t, "web-01", strconv.Itoa(version), key))
			}
			waitFor(t, eventually, "the newest version", holds("199"))
			h.informer.Delete(newHost(t, "web-01", "199", key))
			waitFor(t, eventually, "the deletion", func() bool { return len(store.List()) == 0 })
			h.informer.Add(newHost(t, "web-01", "300", key))
			waitFor(t, 30*time.Second, "the new Host", holds("300"))
		})
	}
}

func watchFunc(request func(metav1.ListOptions) *rest.Request) toolscache.WatchFuncWithContext {
	return func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		options.Watch = true
		return request(options).Watch(ctx)
	}
}
