// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package kubeconfig

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/atomicfile"
	"github.com/nixfleet/nixfleet/cmd/control-plane/internal/pki"
)

const (
	clusterName = "nixfleet"
	userName    = "nixfleet-admin"
)

// Write puts a kubeconfig for server (an https URL) at path, mode 0600,
// replacing an older one in one step. The certificates are embedded.
func Write(path, server, caFile string, user pki.Files) error {
	cluster := clientcmdapi.NewCluster()
	cluster.Server = server
	auth := clientcmdapi.NewAuthInfo()
	for _, part := range []struct {
		file string
		into *[]byte
	}{
		{caFile, &cluster.CertificateAuthorityData},
		{user.CertFile, &auth.ClientCertificateData},
		{user.KeyFile, &auth.ClientKeyData},
	} {
		data, err := os.ReadFile(part.file)
		if err != nil {
			return fmt.Errorf("kubeconfig %s: %w", path, err)
		}
		*part.into = data
	}
	data, err := clientcmd.Write(assemble(cluster, auth))
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return atomicfile.Write(path, data, 0o600)
}

func assemble(cluster *clientcmdapi.Cluster, auth *clientcmdapi.AuthInfo) clientcmdapi.Config {
	context := clientcmdapi.NewContext()
	context.Cluster = clusterName
	context.AuthInfo = userName
	config := clientcmdapi.NewConfig()
	config.Clusters[clusterName] = cluster
	config.AuthInfos[userName] = auth
	config.Contexts[clusterName] = context
	config.CurrentContext = clusterName
	return *config
}
