// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package nixtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// Spec describes a system to build. Equal specs give equal store paths; the zero value
// is a system for any host of this platform.
type Spec struct {
	// Host is the name in the host identity. Default: "*".
	Host string

	// Platform is the platform in the host identity and in the file "system". Default:
	// x86_64-linux, whatever this machine is: nothing of a closure is of a platform.
	Platform string

	// Version tells systems of one host apart. It is part of the label. Default: "1".
	Version string

	// Kernel is the version of the kernel. Default: "6.12.1".
	Kernel string

	// InitInterface is the text of init-interface-version. Default: "systemd 2".
	InitInterface string

	// OnSwitch is shell code that switch-to-configuration runs before it relinks
	// /run/current-system, for the actions test and switch. It finds $root, $toplevel
	// and $action. Example: "exit 4".
	OnSwitch string

	// OnBoot is the same for the actions boot and switch, run before the boot default is
	// written.
	OnBoot string

	// NoSwitch leaves switch-to-configuration out.
	NoSwitch bool

	// NoHostIdentity leaves etc/nixfleet/host.json out.
	NoHostIdentity bool

	// NoAgent leaves the enabled unit of the agent out.
	NoAgent bool

	// HealthChecks is the text of etc/nixfleet/health-checks.json; empty for none.
	HealthChecks string

	// Scripts are shell programs that become store paths of their own, by name. In
	// HealthChecks and in every other text "@name@" stands for the path of the program.
	Scripts map[string]string

	// Etc are further files below etc, by path.
	Etc map[string]string

	// EtcLinks are symbolic links below etc, path to target.
	EtcLinks map[string]string

	// Links are symbolic links in the toplevel, path to target.
	Links map[string]string

	// Ballast makes the system larger by so many bytes, below 100,000.
	Ballast int
}

// switchHead finds out where the program lies. It is called by its physical path.
const switchHead = `#!/bin/sh
PATH=/usr/bin:/bin:/run/current-system/sw/bin
action="$1"
root="${0%%/nix/store/*}"
toplevel="${0#"$root"}"
toplevel="${toplevel%/bin/switch-to-configuration}"
mkdir -p "$root/run" "$root/boot"
echo "$action $toplevel" >> "$root/run/switch.log"
`

// relink is the last that happens, as on NixOS.
const relink = `ln -sfn "$toplevel" "$root/run/current-system.tmp" || exit 2
mv -T "$root/run/current-system.tmp" "$root/run/current-system" || exit 2
;; esac
exit 0
`

const agentUnit = `[Unit]
Description=NixFleet agent

[Service]
ExecStart=/run/current-system/sw/bin/nixfleet-agent

[Install]
WantedBy=multi-user.target
`

func (s Spec) switchProgram() string {
	var b strings.Builder
	b.WriteString(switchHead)
	b.WriteString("case \"$action\" in boot|switch)\n:\n" + s.OnBoot + "\n")
	b.WriteString("printf %s \"$toplevel\" > \"$root/boot/default\" || exit 1\n;; esac\n")
	b.WriteString("case \"$action\" in test|switch)\n:\n" + s.OnSwitch + "\n")
	b.WriteString(relink)
	return b.String()
}

func (s Spec) withDefaults() Spec {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&s.Host, "*"}, {&s.Platform, "x86_64-linux"}, {&s.Version, "1"}, {&s.Kernel, "6.12.1"}, {&s.InitInterface, "systemd 2"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return s
}

type file struct {
	Text string `json:"text"`
	Mode string `json:"mode"`
}

// description is the input of closure.nix.
type description struct {
	Name     string            `json:"name"`
	Kernel   string            `json:"kernel"`
	Ballast  string            `json:"ballast"`
	Scripts  map[string]string `json:"scripts"`
	Files    map[string]file   `json:"files"`
	Links    map[string]string `json:"links"`
	Etc      map[string]file   `json:"etc"`
	EtcLinks map[string]string `json:"etcLinks"`
}

func (s Spec) describe() ([]byte, error) {
	s = s.withDefaults()
	label := strings.ReplaceAll(s.Host, "*", "any") + "-" + s.Version
	d := description{
		Name:   label,
		Kernel: s.Kernel,
		// Not compressible to nothing, so that downloads have a size.
		Ballast:  ballast(s.Ballast),
		Scripts:  make(map[string]string),
		Files:    make(map[string]file),
		Links:    make(map[string]string),
		Etc:      make(map[string]file),
		EtcLinks: make(map[string]string),
	}
	maps.Copy(d.Links, s.Links)
	maps.Copy(d.EtcLinks, s.EtcLinks)
	for name, text := range s.Scripts {
		d.Scripts[name] = "#!/bin/sh\n" + text + "\n"
	}
	d.Files["nixos-version"] = file{label, "644"}
	d.Files["init-interface-version"] = file{s.InitInterface, "644"}
	d.Files["system"] = file{s.Platform, "644"}
	if !s.NoSwitch {
		d.Files["bin/switch-to-configuration"] = file{s.switchProgram(), "755"}
	}
	for path, text := range s.Etc {
		d.Etc[path] = file{text, "644"}
	}
	if !s.NoHostIdentity {
		identity, err := json.Marshal(map[string]string{"name": s.Host, "platform": s.Platform})
		if err != nil {
			return nil, err
		}
		d.Etc["nixfleet/host.json"] = file{string(identity), "644"}
	}
	if s.HealthChecks != "" {
		d.Etc["nixfleet/health-checks.json"] = file{s.HealthChecks, "644"}
	}
	if !s.NoAgent {
		d.Etc["systemd/system/nixfleet-agent.service"] = file{agentUnit, "644"}
		d.EtcLinks["systemd/system/multi-user.target.wants/nixfleet-agent.service"] = "../nixfleet-agent.service"
	}
	return json.Marshal(d)
}

func ballast(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%x.", uint64(i)*0x9E3779B97F4A7C15)
	}
	return b.String()
}
