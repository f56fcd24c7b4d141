// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package host

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nixfleet/nixfleet/internal/testenv"
)

var (
	env *testenv.Env
	// asManager has the rights of the manager and no more.
	asManager client.Client
	// actingFor returns a client that writes as the gateway does for a host.
	actingFor func(host client.Object) client.Client
)

func TestHostController(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Host controller")
}

var _ = BeforeSuite(func() {
	env = testenv.Start(GinkgoTB())
	var err error
	asManager, err = env.ClientFor(env.ManagerConfig())
	Expect(err).NotTo(HaveOccurred())
	actingFor = func(host client.Object) client.Client {
		config := env.As(testenv.AgentUser)
		config.Impersonate.Extra = map[string][]string{"nixfleet.io/host": {client.ObjectKeyFromObject(host).String()}}
		agent, err := env.ClientFor(config)
		Expect(err).NotTo(HaveOccurred())
		return agent
	}
})
