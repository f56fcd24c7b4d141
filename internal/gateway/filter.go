// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package gateway

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// maxHostName is the bound that the Host's own validation sets.
const maxHostName = 200

// action is one of the requests that exist here.
type action int

const (
	actionGet action = iota + 1
	actionList
	actionWatch
	actionApplyStatus
	actionPatchLease
	actionCreateEvent
)

// rule is what there is to know about an action.
type rule struct {
	verb     string // Of the access log and the metrics.
	resource string
	method   string
	query    []string // Parameters that the action understands or may ignore.
}

func (a action) rule() rule {
	switch a {
	case actionGet:
		return rule{"get", "hosts", http.MethodGet, []string{"resourceVersion", "timeout"}}
	case actionList:
		return rule{"list", "hosts", http.MethodGet, []string{
			"fieldSelector", "resourceVersion", "resourceVersionMatch", "limit", "watch", "allowWatchBookmarks", "timeoutSeconds", "timeout",
		}}
	case actionWatch:
		return rule{"watch", "hosts", http.MethodGet, []string{
			"fieldSelector", "resourceVersion", "resourceVersionMatch", "watch", "allowWatchBookmarks", "sendInitialEvents", "timeoutSeconds", "timeout",
		}}
	case actionApplyStatus:
		return rule{"apply", "hosts/status", http.MethodPatch, writeParameters}
	case actionPatchLease:
		return rule{"patch", "leases", http.MethodPatch, writeParameters}
	case actionCreateEvent:
		return rule{"create", "events", http.MethodPost, writeParameters}
	default:
		return rule{"other", "other", "", nil}
	}
}

// writeParameters may be sent, because clients do, but the gateway sets its own values.
// dryRun is not among them: ignoring it would write where nothing was to be written.
var writeParameters = []string{"fieldManager", "force", "fieldValidation", "timeout"}

// request is a request that exists here. Whether the sender may make it is another
// question.
type request struct {
	action  action
	host    types.NamespacedName // Without a name for events: their body has it.
	options internalversion.ListOptions
}

// path returns the one spelling of the request's path.
func (r request) path() string {
	hosts := path.Join("/apis", nfv1.GroupVersion.String(), "namespaces", r.host.Namespace, "hosts")
	switch r.action {
	case actionGet:
		return path.Join(hosts, r.host.Name)
	case actionList, actionWatch:
		return hosts
	case actionApplyStatus:
		return path.Join(hosts, r.host.Name, "status")
	case actionPatchLease:
		return path.Join("/apis", coordinationv1.SchemeGroupVersion.String(), "namespaces", r.host.Namespace, "leases", nfv1.LeaseName(r.host.Name))
	case actionCreateEvent:
		return path.Join("/apis", eventsv1.SchemeGroupVersion.String(), "namespaces", r.host.Namespace, "events")
	default:
		return ""
	}
}

// filter recognises requests.
type filter struct {
	info apirequest.RequestInfoResolver
}

func newFilter() filter {
	return filter{info: &apirequest.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}}
}

// parse says which request r is, or why it is none of those that exist here. It looks
// at the method, the path and the query only.
func (f filter) parse(r *http.Request) (request, *refusal) {
	if !plainPath(r) {
		return request{}, forbidden(causePath, "the path %s is not in its canonical form; the gateway serves plain Kubernetes paths only", quote(r.URL.EscapedPath()))
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return request{}, badRequest(causeQuery, "the query cannot be parsed: %v", err)
	}
	// Decoded before the API server's code does it, because that logs what it cannot
	// decode, and a host could fill the log.
	var options internalversion.ListOptions
	if err := internalscheme.ParameterCodec.DecodeParameters(query, metav1.SchemeGroupVersion, &options); err != nil {
		return request{}, badRequest(causeQuery, "the query cannot be decoded: %v", err)
	}
	info, err := f.info.NewRequestInfo(r)
	if err != nil {
		return request{}, forbidden(causePath, "the path %s cannot be parsed", quote(r.URL.Path))
	}
	req, ok := recognise(info)
	if !ok || req.action.rule().method != r.Method {
		return request{}, notAllowed(r)
	}
	req.options = options
	if err := checkQuery(req, query); err != nil {
		return request{}, err
	}
	if !validHost(req) || req.path() != r.URL.Path {
		return request{}, notAllowed(r)
	}
	return req, nil
}

// plainPath says whether the path has one reading only: nothing encoded, no empty or
// dot segments, no matrix parameters, and no host before it.
func plainPath(r *http.Request) bool {
	p := r.URL.Path
	if r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Opaque != "" || r.URL.Fragment != "" {
		return false
	}
	if !strings.HasPrefix(p, "/") || r.URL.EscapedPath() != p || path.Clean(p) != p {
		return false
	}
	return strings.IndexFunc(p, notPlain) < 0
}

func notPlain(c rune) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '/', c == '.', c == '-', c == '_':
		return false
	default:
		return true
	}
}

// recognise matches a parsed request against the list of those that exist. It compares
// every part that the parser tells apart.
func recognise(info *apirequest.RequestInfo) (request, bool) {
	if !info.IsResourceRequest || info.APIPrefix != "apis" || info.Namespace == "" {
		return request{}, false
	}
	req := request{host: types.NamespacedName{Namespace: info.Namespace, Name: info.Name}}
	switch group := info.APIGroup + "/" + info.APIVersion; {
	case group == nfv1.GroupVersion.String() && info.Resource == "hosts":
		req.action = hostAction(info)
	case group == coordinationv1.SchemeGroupVersion.String() && info.Resource == "leases":
		name, found := strings.CutPrefix(info.Name, nfv1.LeasePrefix)
		if found && info.Verb == "patch" && info.Subresource == "" {
			req.action, req.host.Name = actionPatchLease, name
		}
	case group == eventsv1.SchemeGroupVersion.String() && info.Resource == "events":
		if info.Verb == "create" && info.Subresource == "" && info.Name == "" {
			req.action = actionCreateEvent
		}
	}
	return req, req.action != 0
}

func hostAction(info *apirequest.RequestInfo) action {
	switch {
	case info.Subresource == "status" && info.Verb == "patch":
		return actionApplyStatus
	case info.Subresource != "":
		return 0
	case info.Verb == "get":
		return actionGet
	case info.Verb == "list":
		return actionList
	case info.Verb == "watch":
		return actionWatch
	default:
		return 0
	}
}

func validHost(req request) bool {
	if len(validation.IsDNS1123Label(req.host.Namespace)) > 0 {
		return false
	}
	if req.action == actionCreateEvent {
		return true
	}
	return validHostName(req.host.Name)
}

func validHostName(name string) bool {
	return len(name) <= maxHostName && len(validation.IsDNS1123Subdomain(name)) == 0
}

// checkQuery refuses parameters that would be ignored although they change what the
// request means, and those that are given twice, which two parsers could read
// differently.
func checkQuery(req request, query url.Values) *refusal {
	rule := req.action.rule()
	for name, values := range query {
		if !slices.Contains(rule.query, name) {
			return forbidden(causeQuery, "the query parameter %s is not served for %s of %s", quote(name), rule.verb, rule.resource)
		}
		if len(values) > 1 {
			return badRequest(causeQuery, "the query parameter %s is given more than once", quote(name))
		}
	}
	switch req.action {
	case actionList, actionWatch:
		return checkListOptions(req)
	default:
		return nil
	}
}

func checkListOptions(req request) *refusal {
	selector := req.options.FieldSelector
	if selector == nil || len(selector.Requirements()) != 1 || req.host.Name == "" {
		return forbidden(causeNotAllowed, "a host may %s only itself: fieldSelector=metadata.name=NAME is required, and nothing beside it", req.action.rule().verb)
	}
	if name, ok := selector.RequiresExactMatch("metadata.name"); !ok || name != req.host.Name {
		return forbidden(causeNotAllowed, "a host may %s only itself: the one term of fieldSelector must be metadata.name=NAME", req.action.rule().verb)
	}
	if errs := internalvalidation.ValidateListOptions(&req.options, true); len(errs) > 0 {
		return badRequest(causeQuery, "%v", errs.ToAggregate())
	}
	if req.action == actionList && req.options.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
		return badRequest(causeQuery, "resourceVersionMatch=Exact is not served: the gateway keeps the latest version only")
	}
	return nil
}

func notAllowed(r *http.Request) *refusal {
	return forbidden(causeNotAllowed, "%s %s is not served: a host may get, list and watch its own Host, apply its status, patch its Lease and create events about it",
		quote(r.Method), quote(r.URL.Path))
}

// quote makes what a client sent safe to show: bounded, and without control characters.
func quote(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\u2028' || c == '\u2029' {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}
