// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

// HealthCheckType is the kind of a health check.
//
// +kubebuilder:validation:Enum=systemd;launchd;http;tcp
type HealthCheckType string

// Kinds of health checks that can stand in a Host.
const (
	HealthCheckSystemd HealthCheckType = "systemd"
	HealthCheckLaunchd HealthCheckType = "launchd"
	HealthCheckHTTP    HealthCheckType = "http"
	HealthCheckTCP     HealthCheckType = "tcp"
)

// HealthCheck is a check that the agent runs after an activation and at rest. It
// passes as soon as one try passes, and fails when timeoutSeconds are over.
//
// +kubebuilder:validation:XValidation:rule="has(self.systemd) == (self.type == 'systemd')",message="systemd is set if and only if type is systemd"
// +kubebuilder:validation:XValidation:rule="has(self.launchd) == (self.type == 'launchd')",message="launchd is set if and only if type is launchd"
// +kubebuilder:validation:XValidation:rule="has(self.http) == (self.type == 'http')",message="http is set if and only if type is http"
// +kubebuilder:validation:XValidation:rule="has(self.tcp) == (self.type == 'tcp')",message="tcp is set if and only if type is tcp"
type HealthCheck struct {
	// name tells checks of one host apart. Example: nginx.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`
	Name string `json:"name,omitempty"`

	// type is the kind of the check; the field of the same name has its settings.
	// +required
	Type HealthCheckType `json:"type,omitempty"`

	// timeoutSeconds is how long after an activation the check may fail before the
	// closure counts as unhealthy, in seconds. Default: 60.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1800
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`

	// systemd checks that units are active.
	// +optional
	Systemd *SystemdCheck `json:"systemd,omitempty"`

	// launchd checks that services run.
	// +optional
	Launchd *LaunchdCheck `json:"launchd,omitempty"`

	// http checks the answer of an HTTP server on this host.
	// +optional
	HTTP *HTTPCheck `json:"http,omitempty"`

	// tcp checks that a port on this host accepts connections.
	// +optional
	TCP *TCPCheck `json:"tcp,omitempty"`
}

// SystemdCheck checks that units are active.
type SystemdCheck struct {
	// units are names of systemd units with their suffix, such as nginx.service. At most 32.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|mount|path|device|slice|scope|automount|swap)$`
	Units []string `json:"units,omitempty"`
}

// LaunchdCheck checks that launchd services run.
type LaunchdCheck struct {
	// labels are labels of services in the system domain, such as org.nixos.nix-daemon. At most 32.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._-]+$`
	Labels []string `json:"labels,omitempty"`
}

// HTTPScheme is the scheme of an HTTP check.
//
// +kubebuilder:validation:Enum=HTTP;HTTPS
type HTTPScheme string

// Schemes of an HTTP check.
const (
	// HTTPSchemeHTTP is plain HTTP.
	HTTPSchemeHTTP HTTPScheme = "HTTP"
	// HTTPSchemeHTTPS is HTTP over TLS; the certificate is not checked, since
	// 127.0.0.1 is rarely in it.
	HTTPSchemeHTTPS HTTPScheme = "HTTPS"
)

// HTTPCheck checks the answer to a GET request to 127.0.0.1.
type HTTPCheck struct {
	// port is the TCP port on 127.0.0.1.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// path is the path and query of the request. Default: /. Example: /healthz.
	// +optional
	// +kubebuilder:default=/
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^/[^[:space:]#]*$`
	Path string `json:"path,omitempty"`

	// scheme is HTTP or HTTPS. Default: HTTP.
	// +optional
	// +kubebuilder:default=HTTP
	Scheme HTTPScheme `json:"scheme,omitempty"`

	// expectedStatus is the status code that passes. Default: 200.
	// +optional
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=599
	ExpectedStatus int32 `json:"expectedStatus,omitempty"`
}

// TCPCheck checks that 127.0.0.1 accepts connections on a port.
type TCPCheck struct {
	// port is the TCP port on 127.0.0.1.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}
