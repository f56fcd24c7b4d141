// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Output formats of commands whose answers are no objects of the API.
const (
	jsonOutput = "json"
	yamlOutput = "yaml"
)

// outputFlag is the flag -o of such a command.
type outputFlag string

func (o *outputFlag) add(cmd *cobra.Command) {
	formats := []string{jsonOutput, yamlOutput, wideOutput}
	cmd.Flags().StringVarP((*string)(o), "output", "o", "", "Output format. One of: ("+strings.Join(formats, ", ")+").")
	// The flag was added in the line above.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o outputFlag) validate() error {
	if !slices.Contains([]string{"", jsonOutput, yamlOutput, wideOutput}, string(o)) {
		return usagef("-o %s: the formats are json, yaml and wide", string(o))
	}
	return nil
}

// asText says whether the output is for people.
func (o outputFlag) asText() bool { return o == "" || o.wide() }

func (o outputFlag) wide() bool { return o == wideOutput }

// encode writes a value for programs.
func (o outputFlag) encode(w io.Writer, value any) error {
	marshal := func(v any) ([]byte, error) { return json.MarshalIndent(v, "", "  ") }
	if o == yamlOutput {
		marshal = yaml.Marshal
	}
	text, err := marshal(value)
	if err != nil {
		return fmt.Errorf("print as %s: %w", string(o), err)
	}
	return write(w, strings.TrimSuffix(string(text), "\n")+"\n")
}
