// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package version

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The Makefile hands over the version by the names of these variables. The linker
// ignores a name that it does not find, so a renamed variable would go unnoticed.
func TestMakefileSetsVariables(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Version": Version, "Commit": Commit} {
		flag := "-X $(MODULE)/internal/version." + name + "="
		if !strings.Contains(string(makefile), flag) {
			t.Errorf("the Makefile does not contain %q", flag)
		}
		if !strings.Contains(String(), value) {
			t.Errorf("String() = %q, does not contain %s %q", String(), name, value)
		}
	}
}
