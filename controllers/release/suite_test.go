// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

//go:build integration

package release

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
)

func TestReleaseController(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Release controller")
}

var _ = BeforeSuite(func() {
	env = testenv.Start(GinkgoTB())
	var err error
	asManager, err = env.ClientFor(env.ManagerConfig())
	Expect(err).NotTo(HaveOccurred())
})
