// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nix

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
)

// ErrInvalidCacheURL is wrapped by every error of ParseCacheURL.
var ErrInvalidCacheURL = errors.New("not the URL of a binary cache")

// ParseCacheURL checks the URL of a binary cache and returns it without slashes at its
// end. Only http and https pass, without user, query and fragment: Nix reads store
// settings from the query, and "?trusted=1" would switch signatures off.
func ParseCacheURL(s string) (string, error) {
	if i := strings.IndexFunc(s, forbiddenInURL); i >= 0 {
		return "", urlError(s, "it has a character that is not allowed")
	}
	u, err := url.Parse(s)
	if err != nil {
		// The error of the parser repeats the URL, which may have a password in it.
		return "", urlError("", "it cannot be parsed")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", urlError(u.Redacted(), "only http and https are allowed")
	case u.Opaque != "" || u.Hostname() == "":
		return "", urlError(u.Redacted(), "it names no host")
	case u.User != nil:
		return "", urlError(u.Redacted(), "it has a user in it; put credentials into the netrc file of Nix")
	case u.RawQuery != "" || u.ForceQuery:
		return "", urlError(u.Redacted(), "it has a query, which could switch signatures off")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return "", urlError(u.Redacted(), "it has a fragment")
	case strings.ContainsFunc(u.Path, func(r rune) bool { return r == '?' || r == '#' || forbiddenInURL(r) }):
		return "", urlError(u.Redacted(), "its path has an escaped character that is not allowed")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// ParseCacheURLs is ParseCacheURL for a list, with repetitions left out.
func ParseCacheURLs(urls []string) ([]string, error) {
	parsed := make([]string, 0, len(urls))
	seen := make(map[string]bool, len(urls))
	for _, s := range urls {
		u, err := ParseCacheURL(s)
		if err != nil {
			return nil, err
		}
		if !seen[u] {
			seen[u] = true
			parsed = append(parsed, u)
		}
	}
	return parsed, nil
}

func forbiddenInURL(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' || r > unicode.MaxASCII
}

func urlError(s, why string) error {
	if s == "" {
		return fmt.Errorf("%w: %s", ErrInvalidCacheURL, why)
	}
	return fmt.Errorf("%w: %q: %s", ErrInvalidCacheURL, shorten(s), why)
}
