// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestFilterRecognises(t *testing.T) {
	web := types.NamespacedName{Namespace: "fleet", Name: "web-01"}
	tests := map[string]struct {
		method, target string
		action         action
		host           types.NamespacedName
	}{
		"get":                {"GET", hostsPath + "/web-01", actionGet, web},
		"get from the cache": {"GET", hostsPath + "/web-01?resourceVersion=0", actionGet, web},
		"list":               {"GET", hostsPath + "?fieldSelector=metadata.name%3Dweb-01&limit=500&resourceVersion=0", actionList, web},
		"list with ==":       {"GET", hostsPath + "?fieldSelector=metadata.name==web-01", actionList, web},
		"watch":              {"GET", watchPath + "&resourceVersion=7&timeoutSeconds=300", actionWatch, web},
		"watch as list":      {"GET", watchPath + "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", actionWatch, web},
		"status":             {"PATCH", hostsPath + "/web-01/status?fieldManager=me&force=true", actionApplyStatus, web},
		"lease":              {"PATCH", leasePath, actionPatchLease, web},
		"event":              {"POST", eventPath, actionCreateEvent, types.NamespacedName{Namespace: "fleet"}},
		"a name with a dot":  {"GET", hostsPath + "/web-01.example.org", actionGet, types.NamespacedName{Namespace: "fleet", Name: "web-01.example.org"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ref := newFilter().parse(httptest.NewRequest(tt.method, tt.target, nil))
			if ref != nil {
				t.Fatal(ref.status.Message)
			}
			if got.action != tt.action || got.host != tt.host {
				t.Errorf("parse = %v %v, want %v %v", got.action, got.host, tt.action, tt.host)
			}
		})
	}
}

// refusedTargets are the requests that must never get past the filter; they also seed
// the fuzz test.
var refusedTargets = map[string]struct {
	method, target string
	code           int
}{
	"root":                          {"GET", "/", 403},
	"discovery":                     {"GET", "/apis", 403},
	"discovery of the group":        {"GET", "/apis/nixfleet.io/v1alpha1", 403},
	"health":                        {"GET", "/healthz", 403},
	"metrics":                       {"GET", "/metrics", 403},
	"all hosts":                     {"GET", "/apis/nixfleet.io/v1alpha1/hosts", 403},
	"all hosts of the namespace":    {"GET", hostsPath, 403},
	"watch of all":                  {"GET", hostsPath + "?watch=true", 403},
	"watch by path":                 {"GET", "/apis/nixfleet.io/v1alpha1/watch/namespaces/fleet/hosts/web-01", 403},
	"watch by path, in query":       {"GET", "/apis/nixfleet.io/v1alpha1/watch/namespaces/fleet/hosts?fieldSelector=metadata.name=web-01", 403},
	"watch of a named path":         {"GET", hostsPath + "/web-01?watch=true", 403},
	"two terms":                     {"GET", hostsPath + "?fieldSelector=metadata.name=web-01,metadata.namespace=fleet", 403},
	"two names":                     {"GET", hostsPath + "?fieldSelector=metadata.name=web-01,metadata.name=web-02", 403},
	"another field":                 {"GET", hostsPath + "?fieldSelector=spec.platform=x86_64-linux", 403},
	"not equal":                     {"GET", hostsPath + "?fieldSelector=metadata.name!=web-01", 403},
	"empty field selector":          {"GET", hostsPath + "?fieldSelector=", 403},
	"garbage field selector":        {"GET", hostsPath + "?fieldSelector=%3D%3D%3D", 400},
	"field selector twice":          {"GET", hostsPath + "?fieldSelector=metadata.name=web-01&fieldSelector=metadata.name=web-02", 400},
	"label selector":                {"GET", watchPath + "&labelSelector=a=b", 403},
	"continue":                      {"GET", hostsPath + "?fieldSelector=metadata.name=web-01&continue=x", 403},
	"exact version":                 {"GET", hostsPath + "?fieldSelector=metadata.name=web-01&resourceVersion=3&resourceVersionMatch=Exact", 400},
	"initial events of a list":      {"GET", hostsPath + "?fieldSelector=metadata.name=web-01&sendInitialEvents=true", 403},
	"initial events without match":  {"GET", watchPath + "&sendInitialEvents=true", 400},
	"bad escape in the query":       {"GET", watchPath + "&x=%zz", 400},
	"semicolon in the query":        {"GET", hostsPath + "?fieldSelector=metadata.name=web-01;watch=true", 400},
	"head":                          {"HEAD", hostsPath + "/web-01", 403},
	"options":                       {"OPTIONS", hostsPath + "/web-01", 403},
	"connect":                       {"CONNECT", hostsPath + "/web-01", 403},
	"lower-case method":             {"get", hostsPath + "/web-01", 403},
	"create":                        {"POST", hostsPath, 403},
	"update":                        {"PUT", hostsPath + "/web-01", 403},
	"patch of the spec":             {"PATCH", hostsPath + "/web-01", 403},
	"delete":                        {"DELETE", hostsPath + "/web-01", 403},
	"delete all":                    {"DELETE", hostsPath, 403},
	"delete all, selected":          {"DELETE", hostsPath + "?fieldSelector=metadata.name=web-01", 403},
	"get of the status":             {"GET", hostsPath + "/web-01/status", 403},
	"update of the status":          {"PUT", hostsPath + "/web-01/status", 403},
	"another subresource":           {"PATCH", hostsPath + "/web-01/scale", 403},
	"below the status":              {"PATCH", hostsPath + "/web-01/status/more", 403},
	"dry run":                       {"PATCH", hostsPath + "/web-01/status?dryRun=All", 403},
	"another version":               {"GET", "/apis/nixfleet.io/v1/namespaces/fleet/hosts/web-01", 403},
	"another group":                 {"GET", "/apis/example.org/v1alpha1/namespaces/fleet/hosts/web-01", 403},
	"upper-case group":              {"GET", "/apis/NIXFLEET.IO/v1alpha1/namespaces/fleet/hosts/web-01", 403},
	"upper-case resource":           {"GET", "/apis/nixfleet.io/v1alpha1/namespaces/fleet/Hosts/web-01", 403},
	"upper-case name":               {"GET", hostsPath + "/WEB-01", 403},
	"upper-case prefix":             {"GET", "/APIS/nixfleet.io/v1alpha1/namespaces/fleet/hosts/web-01", 403},
	"core group":                    {"GET", "/api/v1/namespaces/fleet/hosts/web-01", 403},
	"secrets":                       {"GET", "/api/v1/namespaces/fleet/secrets/token", 403},
	"releases":                      {"GET", "/apis/nixfleet.io/v1alpha1/namespaces/fleet/releases/web", 403},
	"core events":                   {"POST", "/api/v1/namespaces/fleet/events", 403},
	"named event":                   {"POST", eventPath + "/web-01.1", 403},
	"patch of an event":             {"PATCH", eventPath + "/web-01.1", 403},
	"list of events":                {"GET", eventPath, 403},
	"get of the lease":              {"GET", leasePath, 403},
	"create of a lease":             {"POST", "/apis/coordination.k8s.io/v1/namespaces/fleet/leases", 403},
	"update of the lease":           {"PUT", leasePath, 403},
	"a lease of something else":     {"PATCH", "/apis/coordination.k8s.io/v1/namespaces/fleet/leases/web-01", 403},
	"the lease of nobody":           {"PATCH", "/apis/coordination.k8s.io/v1/namespaces/fleet/leases/nixfleet-host-", 403},
	"subresource of the lease":      {"PATCH", leasePath + "/status", 403},
	"namespace":                     {"GET", "/api/v1/namespaces/fleet", 403},
	"namespace status":              {"PATCH", "/apis/nixfleet.io/v1alpha1/namespaces/fleet/status", 403},
	"a namespace that is no label":  {"GET", "/apis/nixfleet.io/v1alpha1/namespaces/fl.eet/hosts/web-01", 403},
	"proxy":                         {"GET", "/apis/nixfleet.io/v1alpha1/proxy/namespaces/fleet/hosts/web-01", 403},
	"service proxy":                 {"GET", "/api/v1/namespaces/fleet/services/web:80/proxy/", 403},
	"double slash":                  {"GET", "//apis/nixfleet.io/v1alpha1/namespaces/fleet/hosts/web-01", 403},
	"double slash inside":           {"GET", "/apis/nixfleet.io/v1alpha1/namespaces/fleet//hosts/web-01", 403},
	"trailing slash":                {"GET", hostsPath + "/web-01/", 403},
	"dot segment":                   {"GET", hostsPath + "/./web-01", 403},
	"dot-dot segment":               {"GET", hostsPath + "/../hosts/web-01", 403},
	"dot-dot to another host":       {"GET", hostsPath + "/web-01/../web-02", 403},
	"matrix parameter":              {"GET", hostsPath + "/web-01;v=1", 403},
	"dot-dot with matrix parameter": {"GET", hostsPath + "/..;/hosts/web-01", 403},
	"encoded slash":                 {"GET", hostsPath + "%2fweb-01", 403},
	"encoded slash in the name":     {"PATCH", hostsPath + "/web-01%2fstatus", 403},
	"encoded dot-dot":               {"GET", hostsPath + "/%2e%2e/hosts/web-01", 403},
	"encoded letter":                {"GET", hostsPath + "/web%2d01", 403},
	"encoded NUL":                   {"GET", hostsPath + "/web-01%00", 403},
	"encoded newline":               {"GET", hostsPath + "/web-01%0a", 403},
	"backslash":                     {"GET", hostsPath + `/..\web-01`, 403},
	"full-width letter":             {"GET", hostsPath + "/web%ef%bc%8d01", 403},
	"long name":                     {"GET", hostsPath + "/" + strings.Repeat("a", 201), 403},
	"absolute form":                 {"GET", "http://example.org" + hostsPath + "/web-01", 403},
}

func TestFilterRefuses(t *testing.T) {
	for name, tt := range refusedTargets {
		t.Run(name, func(t *testing.T) {
			r := rawRequest(t, tt.method, tt.target)
			if r == nil {
				return // net/http does not let it in either.
			}
			got, ref := newFilter().parse(r)
			if ref == nil {
				t.Fatalf("parse let it pass as %v of %v", got.action, got.host)
			}
			if int(ref.status.Code) != tt.code || ref.status.Message == "" {
				t.Errorf("refused with %d %q, want %d", ref.status.Code, ref.status.Message, tt.code)
			}
		})
	}
}

// rawRequest makes a request as a server sees it, without the checks of a client.
func rawRequest(t testing.TB, method, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	return &http.Request{Method: method, URL: u, RequestURI: target, Header: http.Header{}, Proto: "HTTP/1.1", Host: "gateway"}
}

// Whatever passes the filter is spelled in exactly one way and names exactly one host.
func FuzzFilter(f *testing.F) {
	for _, tt := range refusedTargets {
		f.Add(tt.method, tt.target)
	}
	f.Add("GET", watchPath)
	f.Add("GET", hostsPath+"/web-01")
	f.Add("PATCH", hostsPath+"/web-01/status?force=true")
	f.Add("PATCH", leasePath)
	f.Add("POST", eventPath)
	filter := newFilter()
	f.Fuzz(func(t *testing.T, method, target string) {
		r := rawRequest(t, method, target)
		if r == nil {
			return
		}
		got, ref := filter.parse(r)
		if ref != nil {
			if ref.status.Code < 400 || ref.status.Message == "" || strings.ContainsAny(ref.status.Message, "\n\r\x00") {
				t.Fatalf("bad refusal: %+v", ref.status)
			}
			return
		}
		rule := got.action.rule()
		if method != rule.method || r.URL.EscapedPath() != got.path() {
			t.Fatalf("%s %q passed as %s %q", method, target, rule.method, got.path())
		}
		if got.action != actionCreateEvent && !validHostName(got.host.Name) {
			t.Fatalf("%q passed for the host %q", target, got.host.Name)
		}
		if got.action == actionList || got.action == actionWatch {
			if want := "metadata.name=" + got.host.Name; got.options.FieldSelector.String() != want {
				t.Fatalf("%q passed with the selector %q", target, got.options.FieldSelector)
			}
		}
	})
}

func TestAcceptsJSON(t *testing.T) {
	tests := map[string]struct {
		accept []string
		want   bool
	}{
		"absent":                 {nil, true},
		"json":                   {[]string{"application/json"}, true},
		"client-go":              {[]string{"application/json, */*"}, true},
		"client-go watch":        {[]string{"application/json;stream=watch"}, true},
		"protobuf, else json":    {[]string{"application/vnd.kubernetes.protobuf,application/json"}, true},
		"kubectl get":            {[]string{"application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}, true},
		"a table only":           {[]string{"application/json;as=Table;v=v1;g=meta.k8s.io"}, false},
		"partial metadata only":  {[]string{"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}, false},
		"protobuf only":          {[]string{"application/vnd.kubernetes.protobuf"}, false},
		"cbor only":              {[]string{"application/cbor"}, false},
		"html":                   {[]string{"text/html"}, false},
		"json that is not liked": {[]string{"application/json;q=0"}, false},
		"garbage":                {[]string{";;;,,"}, false},
		"two headers":            {[]string{"text/html", "application/json"}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ref := acceptsJSON(http.Header{"Accept": tt.accept})
			if (ref == nil) != tt.want {
				t.Errorf("acceptsJSON = %v, want %v", ref, tt.want)
			}
			if ref != nil && ref.status.Code != http.StatusNotAcceptable {
				t.Errorf("code %d, want 406", ref.status.Code)
			}
		})
	}
}

func TestQuoteIsSafeToShow(t *testing.T) {
	got := quote("a\nb\x00c\xff" + strings.Repeat("x", 300))
	if diff := cmp.Diff("a?b?c?"+strings.Repeat("x", 194)+"...", got); diff != "" {
		t.Errorf("quote (-want +got):\n%s", diff)
	}
}
