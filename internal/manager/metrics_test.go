// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package manager

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nixfleet/nixfleet/internal/metrics"
)

// prometheus is an account with or without the right to read metrics, and its token.
func prometheus(t *testing.T, name string, mayRead bool) string {
	t.Helper()
	ctx := t.Context()
	clients, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	namespace := env.Namespace(ctx)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := env.Client.Create(ctx, account); err != nil {
		t.Fatal(err)
	}
	if mayRead {
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-" + namespace},
			Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
		}
		if err := env.Client.Create(ctx, role); err != nil {
			t.Fatal(err)
		}
		if err := env.Client.Create(ctx, binding); err != nil {
			t.Fatal(err)
		}
	}
	token, err := clients.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// scrape asks a manager for its metrics, as Prometheus does.
func scrape(t *testing.T, address, token string, version uint16) (int, string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: version}} //nolint:gosec // nobody signed it
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close() //nolint:errcheck // Read whole.
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// served are the names of our metrics in an answer.
func served(answer string) []string {
	var out []string
	for line := range strings.Lines(answer) {
		if name, found := strings.CutPrefix(line, "# TYPE nixfleet_"); found {
			out = append(out, "nixfleet_"+strings.Fields(name)[0])
		}
	}
	return out
}

func TestMetricsAreServedToWhoMayReadThem(t *testing.T) {
	options := NewOptions()
	options.MetricsBindAddress, options.HealthProbeBindAddress, options.GatewayBindAddress = freePort(t), "0", "0"
	options.MetricsSecure, options.LeaderElect = true, false
	mgr, err := New(env.ManagerConfig(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Errorf("Start returned %v", err)
		}
	})
	newMachine(t, env.Namespace(t.Context()))
	reader, stranger := prometheus(t, "reader", true), prometheus(t, "stranger", false)

	// Some metrics appear only with what they count.
	apart := []string{metrics.Releases, metrics.Rollouts, metrics.RolloutInfo, metrics.RolloutHosts}
	var want []string
	for _, d := range metrics.Table() {
		if !slices.Contains(apart, d.Name) && !strings.HasPrefix(d.Name, "nixfleet_gateway_") {
			want = append(want, d.Name)
		}
	}
	waitFor(t, "the metrics of a leader with a host", func() bool {
		code, answer := scrape(t, options.MetricsBindAddress, reader, tls.VersionTLS13)
		got := served(answer)
		return code == http.StatusOK && strings.Contains(answer, "nixfleet_manager_leading 1") &&
			!slices.ContainsFunc(want, func(name string) bool { return !slices.Contains(got, name) })
	})
	_, answer := scrape(t, options.MetricsBindAddress, reader, tls.VersionTLS13)
	for _, name := range served(answer) {
		if !slices.ContainsFunc(metrics.Table(), func(d metrics.Definition) bool { return d.Name == name }) {
			t.Errorf("%s is served and not declared", name)
		}
	}
	if code, _ := scrape(t, options.MetricsBindAddress, "", tls.VersionTLS13); code != http.StatusUnauthorized {
		t.Errorf("without a token the answer is %d", code)
	}
	if code, _ := scrape(t, options.MetricsBindAddress, stranger, tls.VersionTLS13); code != http.StatusForbidden {
		t.Errorf("without the right the answer is %d", code)
	}
	if code, why := scrape(t, options.MetricsBindAddress, reader, tls.VersionTLS12); code != 0 {
		t.Errorf("TLS 1.2 is answered with %d %s", code, why)
	}
}
