// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package v1alpha1

// Conditions that every kind has. They follow kstatus: Reconciling and Stalled are
// present only while True, Ready is the summary.
const (
	// ConditionReady is True when the object is as its spec asks, False when it is
	// not and will not be without help, Unknown while it is being worked on.
	ConditionReady = "Ready"
	// ConditionReconciling is True while the object is being worked on, absent otherwise.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when the object needs a person, absent otherwise.
	ConditionStalled = "Stalled"
)

// Conditions of a Host.
const (
	// ConditionOnline is True while the agent renews the host's Lease, Unknown when
	// the Lease has not moved for the offline window. It is never False: silence says
	// nothing about the machine. Owned by the host controller.
	ConditionOnline = "Online"
	// ConditionHealthy is True when every health check passed its last try, False when
	// one failed, Unknown before the first try.
	ConditionHealthy = "Healthy"
	// ConditionUpToDate is True when the host runs what spec.desired asks, committed.
	ConditionUpToDate = "UpToDate"
	// ConditionRebootRequired is True when the running system needs a reboot to take
	// full effect.
	ConditionRebootRequired = "RebootRequired"
	// ConditionDrifted is True when the host runs something else than the closure of
	// the last attempt that succeeded.
	ConditionDrifted = "Drifted"
	// ConditionDiskPressure is True when the store has too little space for what is asked.
	ConditionDiskPressure = "DiskPressure"
)

// Reasons of the condition Online.
const (
	// ReasonLeaseRenewed means that the host's Lease moved within the offline window.
	ReasonLeaseRenewed = "LeaseRenewed"
	// ReasonLeaseExpired means that the host's Lease has not moved for the offline window.
	ReasonLeaseExpired = "LeaseExpired"
	// ReasonNeverSeen means that no agent has renewed the host's Lease yet.
	ReasonNeverSeen = "NeverSeen"
	// ReasonNoAgent means that a host of this lifecycle has no agent.
	ReasonNoAgent = "NoAgent"
)

// Reasons of the conditions Ready, Reconciling and Stalled of a Host.
const (
	// ReasonUpToDate means that the host runs what is asked and is healthy.
	ReasonUpToDate = "UpToDate"
	// ReasonNothingDesired means that nothing is asked of the host.
	ReasonNothingDesired = "NothingDesired"
	// ReasonAttemptInProgress means that the agent moves the host to a closure.
	ReasonAttemptInProgress = "AttemptInProgress"
	// ReasonUnhealthy means that a health check of the running system fails.
	ReasonUnhealthy = "Unhealthy"
	// ReasonLifecycle means that the host's lifecycle keeps it out of rollouts.
	ReasonLifecycle = "Lifecycle"
)

// Reasons of an attempt that did not succeed. They are also the reasons of the
// conditions that follow from it.
const (
	// ReasonUntrustedSignature means that no key of the agent's own configuration
	// signed the toplevel.
	ReasonUntrustedSignature = "UntrustedSignature"
	// ReasonWrongHost means that the closure was made for another host or platform, or
	// does not say whom it was made for.
	ReasonWrongHost = "WrongHost"
	// ReasonAgentMissing means that the closure has no enabled agent: the host could
	// never be reached again.
	ReasonAgentMissing = "AgentMissing"
	// ReasonUnsupported means that the closure has no switch-to-configuration.
	ReasonUnsupported = "Unsupported"
	// ReasonFetchFailed means that the closure could not be fetched from any cache.
	ReasonFetchFailed = "FetchFailed"
	// ReasonDiskPressure means that there is too little disk space for the closure.
	ReasonDiskPressure = "DiskPressure"
	// ReasonFailedBefore means that this closure failed under this revision before.
	ReasonFailedBefore = "FailedBefore"
	// ReasonActivationFailed means that switch-to-configuration failed.
	ReasonActivationFailed = "ActivationFailed"
	// ReasonActivationTimeout means that switch-to-configuration did not end in time.
	ReasonActivationTimeout = "ActivationTimeout"
	// ReasonHealthCheckFailed means that a health check did not pass in time.
	ReasonHealthCheckFailed = "HealthCheckFailed"
	// ReasonConfirmTimeout means that the new system could not report in time.
	ReasonConfirmTimeout = "ConfirmTimeout"
	// ReasonCommitFailed means that the profile or the boot default could not be set.
	ReasonCommitFailed = "CommitFailed"
	// ReasonInterrupted means that the agent was interrupted in mid-attempt and went back.
	ReasonInterrupted = "Interrupted"
	// ReasonHostRebooted means that the host rebooted in mid-attempt, into what it ran before.
	ReasonHostRebooted = "HostRebooted"
	// ReasonInterruptedCommit means that the host rebooted into what it ran before although
	// the new system had been confirmed: the commit could not be finished.
	ReasonInterruptedCommit = "InterruptedCommit"
	// ReasonRollbackFailed means that the host could not go back to what it ran before.
	ReasonRollbackFailed = "RollbackFailed"
	// ReasonCompleted means that the attempt succeeded.
	ReasonCompleted = "Completed"
	// ReasonAlreadyRunning means that the host ran the closure already.
	ReasonAlreadyRunning = "AlreadyRunning"
	// ReasonInternalError means that something failed that should not; the message has it.
	ReasonInternalError = "InternalError"
)

// Conditions of a Release.
const (
	// ConditionVerified is True when every closure can be fetched whole from the
	// release's caches and is signed by one of their keys; False when it cannot or is
	// not; Unknown while it is not known.
	ConditionVerified = "Verified"
	// ConditionInUse is True while an unfinished Rollout uses the Release.
	ConditionInUse = "InUse"
)

// Reasons of the condition Verified of a Release.
const (
	// ReasonVerified means that every closure was found and its signatures hold.
	ReasonVerified = "Verified"
	// ReasonMissingPaths means that a path is in none of the caches.
	ReasonMissingPaths = "MissingPaths"
	// ReasonInvalid means that a cache served something that is not valid.
	ReasonInvalid = "Invalid"
	// ReasonCacheUnreachable means that a cache could not be asked.
	ReasonCacheUnreachable = "CacheUnreachable"
	// ReasonVerifying means that the check is under way.
	ReasonVerifying = "Verifying"
	// ReasonVerificationSkipped means that the spec asks for no check.
	ReasonVerificationSkipped = "VerificationSkipped"
)

// Reasons of the condition InUse of a Release.
const (
	// ReasonUsedByRollout means that the rollouts in the message use the Release.
	ReasonUsedByRollout = "UsedByRollout"
	// ReasonNotUsed means that no unfinished rollout uses the Release.
	ReasonNotUsed = "NotUsed"
)
