// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nixfleet/nixfleet/internal/durable"
)

const agentName = "agent.json"

// Agent says what the process of an agent was started from, so that it can be told later
// whether it is still what would be started.
type Agent struct {
	// PID is the process.
	PID int `json:"pid"`

	// Program is the file that was asked for, with its links followed when the process
	// began, and Executable the one that runs, which differs behind a wrapper.
	Program    string `json:"program"`
	Executable string `json:"executable"`

	// Args are the arguments behind the program.
	Args []string `json:"args,omitempty"`

	// Config is the configuration file and ConfigDigest the digest of what it said.
	// Empty: no file was read.
	Config       string `json:"config,omitempty"`
	ConfigDigest string `json:"configDigest,omitempty"`
}

// ThisAgent describes this process, which has read the configuration file config just now.
func ThisAgent(config string) (Agent, error) {
	executable, err := os.Executable()
	if err != nil {
		return Agent{}, fmt.Errorf("find the agent's own program: %w", err)
	}
	a := Agent{PID: os.Getpid(), Executable: executable, Args: os.Args[1:], Config: config, ConfigDigest: DigestFile(config)}
	a.Program, err = filepath.EvalSymlinks(os.Args[0]) //nolint:forbidigo // a program of this machine, not of a host in a directory
	if err != nil || !filepath.IsAbs(a.Program) {
		a.Program = executable
	}
	return a, nil
}

// DigestFile is the digest of a file's contents; empty if it cannot be read.
func DigestFile(name string) string {
	if name == "" {
		return ""
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// SaveAgent writes what the agent is.
func SaveAgent(stateDir string, a Agent) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(stateDir, agentName, append(data, '\n')); err != nil {
		return fmt.Errorf("keep what this agent is: %w", err)
	}
	return nil
}

// LoadAgent reads what the agent that was started last is; the zero value if none said.
func LoadAgent(stateDir string) (Agent, error) {
	var a Agent
	data, err := os.ReadFile(filepath.Join(stateDir, agentName))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err != nil {
		return Agent{}, fmt.Errorf("read what the agent is: %w", err)
	}
	return a, nil
}
