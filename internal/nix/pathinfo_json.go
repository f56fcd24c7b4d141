// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"encoding/json"
	"fmt"
)

// pathInfoEntry is what is read of one path in the output of "nix path-info --json". The
// form of signatures depends on the version.
type pathInfoEntry struct {
	Path       string            `json:"path"`
	Valid      *bool             `json:"valid"`
	Signatures []json.RawMessage `json:"signatures"`
}

// parseSignatures reads the signatures of path from the output of "nix path-info --json
// --sigs" in each of its forms: a list (up to 2.18), an object by path (2.19), the same
// inside "info" and by base name (2.33), signatures as objects (2.35).
func parseSignatures(data []byte, path StorePath) ([]string, error) {
	entry, err := findEntry(data, path)
	if err != nil {
		return nil, fmt.Errorf("read the signatures of %s: %w", path, err)
	}
	signatures := make([]string, 0, len(entry.Signatures))
	for _, raw := range entry.Signatures {
		s, err := parseSignatureJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("read the signatures of %s: %w", path, err)
		}
		signatures = append(signatures, s)
	}
	return signatures, nil
}

func findEntry(data []byte, path StorePath) (pathInfoEntry, error) {
	var list []pathInfoEntry
	if json.Unmarshal(data, &list) == nil {
		for _, entry := range list {
			if entry.Path == path.String() && (entry.Valid == nil || *entry.Valid) {
				return entry, nil
			}
		}
		return pathInfoEntry{}, ErrNotValid
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return pathInfoEntry{}, fmt.Errorf("nix path-info printed something else than JSON: %w", err)
	}
	if info, wrapped := object["info"]; wrapped {
		object = nil
		if err := json.Unmarshal(info, &object); err != nil {
			return pathInfoEntry{}, fmt.Errorf("nix path-info printed a form that is not known: %w", err)
		}
	}
	for _, key := range []string{path.String(), path.Base()} {
		raw, found := object[key]
		if !found || string(raw) == "null" {
			continue
		}
		var entry pathInfoEntry
		if err := json.Unmarshal(raw, &entry); err != nil {
			return pathInfoEntry{}, fmt.Errorf("nix path-info printed a form that is not known: %w", err)
		}
		return entry, nil
	}
	return pathInfoEntry{}, ErrNotValid
}

func parseSignatureJSON(raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var object struct {
		KeyName string `json:"keyName"`
		Sig     string `json:"sig"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", fmt.Errorf("signature in a form that is not known: %w", err)
	}
	return object.KeyName + ":" + object.Sig, nil
}
