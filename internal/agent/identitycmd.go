// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/yaml"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/identity"
)

// printIdentity prints the host's public key: as a line for spec.identity.publicKeys of the
// Host, or as a Host. It makes the key if there is none.
func printIdentity(c Config, w io.Writer, output string) error {
	if output != "" && output != "yaml" {
		return fmt.Errorf("--output %q: it can be yaml, for a Host; without it the answer is the line for spec.identity.publicKeys", output)
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	key, err := identity.LoadOrCreateKey(c.IdentityKeyFile)
	if err != nil {
		return err
	}
	pin, err := identity.PinOf(key.Public())
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%s %s", pin, c.HostName)
	if output == "yaml" {
		return printHost(c, line, w)
	}
	_, err = fmt.Fprintf(w, "%s\n# fingerprint %s\n", line, pin.Fingerprint())
	return err
}

// hostManifest is the part of a Host that a new one needs. The type of the API would bring
// its status along.
type hostManifest struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       hostManifestSpec  `json:"spec"`
}

type hostManifestSpec struct {
	Platform nfv1.Platform     `json:"platform"`
	Identity nfv1.HostIdentity `json:"identity"`
}

func printHost(c Config, key string, w io.Writer) error {
	data, err := yaml.Marshal(hostManifest{
		APIVersion: nfv1.GroupVersion.String(), Kind: "Host",
		Metadata: map[string]string{"name": c.HostName, "namespace": c.Namespace},
		Spec:     hostManifestSpec{Platform: nfv1.Platform(c.Platform), Identity: nfv1.HostIdentity{PublicKeys: []string{key}}},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
