// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package attempt

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/nixfleet/nixfleet/internal/durable"
)

const (
	attemptsDir    = "attempts"
	planName       = "plan.json"
	activationName = "activation.json"
	rollbackName   = "rollback.json"

	minNonce  = 16
	maxRecord = 1 << 20
)

// NewNonce is a value that no other attempt has.
func NewNonce() string { return rand.Text() }

// Dir is the directory of an attempt.
type Dir struct {
	path   string
	number int64
}

// At is the directory of an attempt, whether it exists or not.
func At(stateDir string, number int64) Dir {
	return Dir{path: filepath.Join(stateDir, attemptsDir, strconv.FormatInt(number, 10)), number: number}
}

// Path is where it lies.
func (d Dir) Path() string { return d.path }

// Create makes the directory of an attempt. The plan appears last, with everything else
// in place: without it nothing was done. The error wraps fs.ErrExist if the attempt is
// there already.
func Create(p Plan) (Dir, error) {
	d := At(p.StateDir, p.Number)
	if err := d.create(p); err != nil {
		return Dir{}, fmt.Errorf("write the plan of attempt %d: %w", p.Number, err)
	}
	return d, nil
}

func (d Dir) create(p Plan) error {
	if err := p.validate(); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(d.path, planName)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fs.ErrExist)
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	if err := d.prepareDecisions(); err != nil {
		return err
	}
	if err := d.write(planName, p); err != nil {
		return err
	}
	parent := filepath.Dir(d.path)
	return errors.Join(durable.SyncDir(parent), durable.SyncDir(filepath.Dir(parent)))
}

func (d Dir) write(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(d.path, name, append(data, '\n'))
}

// read decodes a record. The error wraps fs.ErrNotExist if there is none.
func (d Dir) read(name string, v any) error {
	data, err := d.bytes(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s of attempt %d: %w", name, d.number, err)
	}
	return nil
}

func (d Dir) bytes(name string) ([]byte, error) {
	file := filepath.Join(d.path, name)
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRecord {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", file, info.Size(), maxRecord)
	}
	return os.ReadFile(file)
}

// Plan reads the plan. The error wraps fs.ErrNotExist if nothing was planned.
func (d Dir) Plan() (Plan, error) {
	data, err := d.bytes(planName)
	if err != nil {
		return Plan{}, fmt.Errorf("read the plan of attempt %d: %w", d.number, err)
	}
	p, err := decodePlan(data)
	if err == nil && p.Number != d.number {
		err = fmt.Errorf("it is that of attempt %d", p.Number)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("read the plan of attempt %d: %w", d.number, err)
	}
	return p, nil
}

// Numbers are the attempts that have a directory, lowest first.
func Numbers(stateDir string) ([]int64, error) {
	entries, err := os.ReadDir(filepath.Join(stateDir, attemptsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the attempts: %w", err)
	}
	var numbers []int64
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil && n > 0 && e.IsDir() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// Next is a number that no attempt has had, given the highest that is remembered
// elsewhere.
func Next(stateDir string, remembered int64) (int64, error) {
	numbers, err := Numbers(stateDir)
	if err != nil {
		return 0, err
	}
	return max(remembered, slices.Max(append(numbers, 0))) + 1, nil
}

// Prune removes the oldest attempts but for the newest few.
func Prune(stateDir string, keep int) error {
	numbers, err := Numbers(stateDir)
	if err != nil {
		return err
	}
	for _, n := range numbers[:max(len(numbers)-keep, 0)] {
		if err := os.RemoveAll(At(stateDir, n).path); err != nil {
			return fmt.Errorf("remove attempt %d: %w", n, err)
		}
	}
	return nil
}
