// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package agent

import (
	"github.com/spf13/pflag"
)

// configFlags are the flags that stand in for keys of the configuration file. One that is
// given wins over the file.
type configFlags struct {
	set    *pflag.FlagSet
	values Config
	apply  map[string]func(*Config)
}

func newConfigFlags(set *pflag.FlagSet) *configFlags {
	f := &configFlags{set: set, apply: map[string]func(*Config){}}
	v := &f.values
	text := func(name, usage string, at func(*Config) *string) {
		set.StringVar(at(v), name, "", usage)
		f.apply[name] = func(c *Config) { *at(c) = *at(v) }
	}
	list := func(name, usage string, at func(*Config) *[]string) {
		set.StringArrayVar(at(v), name, nil, usage+"; may be repeated")
		f.apply[name] = func(c *Config) { *at(c) = *at(v) }
	}
	text("server", "URL of the agent gateway, https", func(c *Config) *string { return &c.Server })
	text("namespace", "namespace of the Host", func(c *Config) *string { return &c.Namespace })
	text("host-name", "name of the Host", func(c *Config) *string { return &c.HostName })
	text("ca-file", "certificates that the gateway's must lead to, in PEM", func(c *Config) *string { return &c.CAFile })
	text("identity-key-file", "private key of the host", func(c *Config) *string { return &c.IdentityKeyFile })
	text("root", "where the host's file system begins", func(c *Config) *string { return &c.Root })
	text("state-dir", "where the agent keeps its journal", func(c *Config) *string { return &c.StateDir })
	text("nix-conf-dir", "directory of nix.conf", func(c *Config) *string { return &c.NixConfDir })
	text("platform", "Nix system double of the machine", func(c *Config) *string { return &c.Platform })
	text("log-level", "debug, info, warn or error", func(c *Config) *string { return &c.LogLevel })
	text("log-format", "text or json", func(c *Config) *string { return &c.LogFormat })
	list("trusted-public-key", "key whose signature on a system is obeyed", func(c *Config) *[]string { return &c.TrustedPublicKeys })
	list("substitution-key", "further key that the rest of a closure may be signed with", func(c *Config) *[]string { return &c.SubstitutionKeys })
	list("tag", "tag of the host, for people", func(c *Config) *[]string { return &c.Tags })
	list("ignore-failed-unit", "pattern of names of units that may fail, such as backup-*.service", func(c *Config) *[]string { return &c.IgnoreFailedUnits })
	set.IntVar(&v.HeartbeatSeconds, "heartbeat-seconds", 0, "how often the Lease is renewed")
	f.apply["heartbeat-seconds"] = func(c *Config) { c.HeartbeatSeconds = v.HeartbeatSeconds }
	set.IntVar(&v.MetricsPort, "metrics-port", 0, "port of 127.0.0.1 for metrics; 0: none")
	f.apply["metrics-port"] = func(c *Config) { c.MetricsPort = v.MetricsPort }
	set.BoolVar(&v.AllowMissingHostFile, "allow-missing-host-file", false, "accept systems that do not say whom they were made for")
	f.apply["allow-missing-host-file"] = func(c *Config) { c.AllowMissingHostFile = v.AllowMissingHostFile }
	set.BoolVar(&v.DryRun, "dry-run", false, "fetch and judge what is asked, and say what would be done instead of doing it")
	f.apply["dry-run"] = func(c *Config) { c.DryRun = v.DryRun }
	return f
}

// override puts the flags that were given into the configuration.
func (f *configFlags) override(c *Config) {
	// Visit would see nothing: a command parses into a set of its own, which shares the flags.
	f.set.VisitAll(func(flag *pflag.Flag) {
		if apply, ok := f.apply[flag.Name]; ok && flag.Changed {
			apply(c)
		}
	})
}
