// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package command

import (
	"github.com/spf13/pflag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"

	// The JSON format is there for --logging-format.
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// logging is one log for all parts: Kubernetes writes to klog, etcd and
// controller-runtime are led there.
type logging struct {
	config *logsapi.LoggingConfiguration
}

func newLogging() *logging {
	return &logging{config: logsapi.NewLoggingConfiguration()}
}

func (l *logging) addFlags(flags *pflag.FlagSet) {
	logsapi.AddFlags(l.config, flags)
}

// apply must be called once, before anything is logged.
func (l *logging) apply() error {
	logs.InitLogs()
	if err := logsapi.ValidateAndApply(l.config, nil); err != nil {
		return err
	}
	ctrllog.SetLogger(klog.Background())
	return nil
}
