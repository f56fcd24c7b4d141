// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package preview

import (
	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
	"github.com/nixfleet/nixfleet/internal/rollout"
)

// Forecast is what a rollout would do, if every host succeeds at once.
type Forecast struct {
	// Namespace and Name are those of the Rollout, Release is the name of its Release.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Release   string `json:"release"`

	// Now is where the rollout stands, or would stand right after its creation.
	Now Standing `json:"now"`

	// Waves are the waves in their order.
	Waves []Wave `json:"waves"`

	// Late are the hosts that are offline and get their assignment after the last wave, for
	// their return.
	Late []string `json:"late,omitempty"`

	// SentBack are the hosts that would be sent back to what they ran before, in order.
	SentBack []string `json:"sentBack,omitempty"`

	// Kept are the hosts that stay where they are, with the reason.
	Kept []Kept `json:"kept,omitempty"`

	// Assumed says what must happen outside the rollout for the forecast to hold.
	Assumed []string `json:"assumed,omitempty"`

	// End is where the rollout would come to rest.
	End Standing `json:"end"`

	// WaitSeconds is how long all soaks take together: the rollout cannot be faster.
	WaitSeconds int64 `json:"waitSeconds"`

	// Order says whether the order of hosts is known. It hangs on the UID that the API
	// server gives the Rollout when it is created.
	Order Order `json:"order"`

	// Truncated says that the forecast was given up after as many steps as it may take.
	Truncated bool `json:"truncated,omitempty"`
}

// Order says whether the order of hosts inside a wave is known.
type Order string

const (
	// OrderKnown means that the hosts are moved as listed.
	OrderKnown Order = "Known"
	// OrderDrawn means that the order is drawn when the Rollout is created.
	OrderDrawn Order = "DrawnAtCreation"
)

// Standing is where a rollout stands.
type Standing struct {
	Phase   nfv1.RolloutPhase `json:"phase"`
	Reason  string            `json:"reason"`
	Message string            `json:"message"`
}

// Wave is a wave of the forecast.
type Wave struct {
	// Name is the name of the wave.
	Name string `json:"name"`

	// Reached says whether the wave begins at all.
	Reached bool `json:"reached"`

	// Size, MaxUnavailable and Threshold are the numbers of the wave: how many hosts it
	// takes, how many may be unavailable at once and how many may fail. They are fixed when
	// the wave starts, and 0 for one that is not reached.
	Size           int32 `json:"size"`
	MaxUnavailable int32 `json:"maxUnavailable"`
	Threshold      int32 `json:"threshold"`

	// SoakSeconds is how long the wave is watched after its last host.
	SoakSeconds int32 `json:"soakSeconds"`

	// Approval says whether a person has to let the wave begin, and has.
	Approval Approval `json:"approval"`

	// Moved are the hosts that the rollout had assigned in this wave before now, by name.
	Moved []string `json:"moved,omitempty"`

	// Candidates are all hosts that the wave can take, by name. Where the order is drawn,
	// a wave takes Size of them.
	Candidates []string `json:"candidates,omitempty"`

	// Batches are the hosts that are assigned at once, one batch after the other. They are
	// absent where the order is drawn and the wave does not take all its candidates at once.
	Batches [][]string `json:"batches,omitempty"`
}

// Approval says whether a person has to let a wave begin.
type Approval string

const (
	// ApprovalNone means that nobody has to.
	ApprovalNone Approval = "None"
	// ApprovalGiven means that somebody has.
	ApprovalGiven Approval = "Given"
	// ApprovalNeeded means that somebody still has to.
	ApprovalNeeded Approval = "Needed"
)

// Kept is a target that the rollout does not move.
type Kept struct {
	Host    string `json:"host"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func standing(d rollout.Decision) Standing {
	s := Standing{Phase: d.Status.Phase, Message: d.Status.Message}
	if len(d.Notes) > 0 {
		s.Reason = d.Notes[0].Reason
	}
	return s
}
