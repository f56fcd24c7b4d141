// SPDX-License-Identifier: Apache-2.0
// Copyright The NixFleet Authors.

package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nfv1 "github.com/nixfleet/nixfleet/api/v1alpha1"
)

// Member is a host and when it was last heard of.
type Member struct {
	Host *nfv1.Host
	// LastSeen is the zero time for a host that was never heard of.
	LastSeen time.Time
}

// SortMembers sorts by namespace and name.
func SortMembers(members []Member) {
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Host.Namespace, b.Host.Namespace), cmp.Compare(a.Host.Name, b.Host.Name))
	})
}

const (
	none    = "-"
	unknown = "unknown"
	yes     = "yes"
	no      = "no"

	lastSeenTitle = "LAST-SEEN"
)

// Fleet returns the table of hosts and a line that sums up.
func Fleet(members []Member, o Options) string {
	t := fleetTable(members, o)
	return t.render(o) + "\n" + Summary(members, o) + "\n"
}

// FleetRows returns the title line and one line for each member, in their order, for
// output that only grows. Without the column LAST-SEEN: ages change all the time, and
// equal rows are to mean that nothing has happened.
func FleetRows(members []Member, o Options) []string {
	t := fleetTable(members, o)
	if at := slices.IndexFunc(t.columns, func(c column) bool { return c.title == lastSeenTitle }); at >= 0 {
		t.columns = slices.Delete(t.columns, at, at+1)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], at, at+1)
		}
	}
	return t.lines(o)
}

func fleetTable(members []Member, o Options) table {
	t := table{columns: []column{
		{"HOST", 0}, {"PHASE", 4}, {"ONLINE", 0}, {"HEALTHY", 2}, {"RUNNING", 6}, {"DESIRED", 3},
		{"UP-TO-DATE", 0}, {"REBOOT", 7}, {lastSeenTitle, 5},
	}}
	if o.Namespaces {
		t.columns = slices.Insert(t.columns, 0, column{"NAMESPACE", 1})
	}
	if o.Wide {
		for _, title := range []string{"PLATFORM", "LIFECYCLE", "ROLLOUT", "WAVE", "OUTCOME", "STORE-PATH"} {
			t.columns = append(t.columns, column{title, 0})
		}
	}
	for _, m := range members {
		t.add(fleetRow(m, o)...)
	}
	return t
}

func fleetRow(m Member, o Options) []cell {
	h := m.Host
	row := []cell{
		{h.Name, bold}, phaseCell(h), onlineCell(h), healthyCell(h), {runningText(h.Status.Running), plain}, {desiredText(h), plain},
		upToDateCell(h), rebootCell(h), lastSeenCell(m, o),
	}
	if o.Namespaces {
		row = slices.Insert(row, 0, cell{h.Namespace, plain})
	}
	if o.Wide {
		rollout, wave, outcome, path := none, none, none, none
		if d := h.Spec.Desired; d != nil {
			wave = cmp.Or(clean(d.Wave), none)
			if d.Rollout != nil {
				rollout = clean(d.Rollout.Name)
			}
		}
		if a := h.Status.Attempt; a != nil {
			outcome = cmp.Or(string(a.Outcome), "in progress")
		}
		if r := h.Status.Running; r != nil {
			path = clean(string(r.StorePath))
		}
		row = append(row, cell{string(h.Spec.Platform), plain}, cell{string(h.Spec.Lifecycle), plain},
			cell{rollout, plain}, cell{wave, plain}, cell{outcome, plain}, cell{path, plain})
	}
	return row
}

func condition(h *nfv1.Host, kind string) *metav1.Condition {
	return meta.FindStatusCondition(h.Status.Conditions, kind)
}

func isTrue(h *nfv1.Host, kind string) bool {
	return meta.IsStatusConditionTrue(h.Status.Conditions, kind)
}

func phaseCell(h *nfv1.Host) cell {
	switch h.Status.Phase {
	case "":
		return cell{none, plain}
	case nfv1.HostPhaseIdle:
		return cell{string(h.Status.Phase), plain}
	default:
		return cell{clean(string(h.Status.Phase)), yellow}
	}
}

func onlineCell(h *nfv1.Host) cell {
	c := condition(h, nfv1.ConditionOnline)
	switch {
	case c == nil:
		return cell{unknown, plain}
	case c.Status == metav1.ConditionTrue:
		return cell{yes, green}
	case c.Reason == nfv1.ReasonNoAgent:
		return cell{none, plain}
	case c.Reason == nfv1.ReasonNeverSeen:
		return cell{"never", yellow}
	default:
		return cell{no, yellow}
	}
}

func healthyCell(h *nfv1.Host) cell {
	c := condition(h, nfv1.ConditionHealthy)
	switch {
	case c == nil:
		return cell{none, plain}
	case c.Status == metav1.ConditionTrue:
		return cell{yes, green}
	case c.Status == metav1.ConditionFalse:
		return cell{no, red}
	default:
		return cell{unknown, yellow}
	}
}

func runningText(s *nfv1.SystemGeneration) string {
	if s == nil {
		return none
	}
	text := shortHash(string(s.StorePath))
	if s.Label != "" {
		text += " " + clean(s.Label)
	}
	return text
}

func desiredText(h *nfv1.Host) string {
	d := h.Spec.Desired
	switch {
	case d == nil || d.Intent == nfv1.IntentNone:
		return none
	case d.Intent == nfv1.IntentRevert:
		return "back to " + shortHash(string(d.StorePath))
	case d.Release != nil:
		return clean(d.Release.Name)
	default:
		return shortHash(string(d.StorePath))
	}
}

// upToDate says whether a host runs what is asked of it. known is false if nothing is
// asked, or if no report answers it.
func upToDate(h *nfv1.Host) (ok, known bool) {
	d := h.Spec.Desired
	if d == nil || d.Intent == nfv1.IntentNone {
		return false, false
	}
	c := condition(h, nfv1.ConditionUpToDate)
	answered := h.Status.ObservedRevision == d.Revision
	return answered && c != nil && c.Status == metav1.ConditionTrue, true
}

func upToDateCell(h *nfv1.Host) cell {
	ok, known := upToDate(h)
	switch {
	case !known:
		return cell{none, plain}
	case ok:
		return cell{yes, green}
	case h.Status.Attempt != nil && h.Status.Attempt.Revision == h.Spec.Desired.Revision && h.Status.Attempt.Outcome != "":
		return cell{no, red}
	default:
		return cell{no, yellow}
	}
}

func rebootCell(h *nfv1.Host) cell {
	if h.Status.Phase == nfv1.HostPhaseAwaitingReboot || isTrue(h, nfv1.ConditionRebootRequired) {
		return cell{"required", yellow}
	}
	return cell{none, plain}
}

func lastSeenCell(m Member, o Options) cell {
	if m.LastSeen.IsZero() {
		return cell{"never", plain}
	}
	text := age(o.Now.Sub(m.LastSeen)) + " ago"
	if stale(m, o) {
		return cell{text + " (stale)", red}
	}
	return cell{text, plain}
}

func stale(m Member, o Options) bool {
	return o.StaleAfter > 0 && !m.LastSeen.IsZero() && o.Now.Sub(m.LastSeen) > o.StaleAfter
}

// Summary returns one line about all members.
func Summary(members []Member, o Options) string {
	var online, unhealthy, moving, current, behind, stales int
	for _, m := range members {
		h := m.Host
		if isTrue(h, nfv1.ConditionOnline) {
			online++
		}
		if c := condition(h, nfv1.ConditionHealthy); c != nil && c.Status == metav1.ConditionFalse {
			unhealthy++
		}
		if h.Status.Phase != "" && h.Status.Phase != nfv1.HostPhaseIdle {
			moving++
		}
		if ok, known := upToDate(h); ok {
			current++
		} else if known {
			behind++
		}
		if stale(m, o) {
			stales++
		}
	}
	parts := []string{plural(len(members), "host"), fmt.Sprintf("%d online", online), fmt.Sprintf("%d up to date", current)}
	for _, p := range []struct {
		n    int
		text string
	}{{behind, "not up to date"}, {moving, "moving"}, {unhealthy, "unhealthy"}, {stales, "not seen for " + age(o.StaleAfter)}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	return strings.Join(wrap(strings.Join(parts, ", "), o.Width), "\n")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
