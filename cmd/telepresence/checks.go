package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/telepresence/telepresence/pkg/doctor"
)

// checkTimeout bounds each check: a cluster that doesn't answer is an answer.
const checkTimeout = 20 * time.Second

// checkGroup is what one capability needs.
type checkGroup struct {
	title  string
	must   bool // no session works without it
	method bool // a session needs one of these
	checks []doctor.Check
}

// finding is what a check found out.
type finding struct {
	Group  string `json:"group"`
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Fault  string `json:"fault,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// runChecks runs all checks at once and returns what they found, in order.
func runChecks(ctx context.Context, groups []checkGroup) []finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var findings []*finding
	var wg sync.WaitGroup
	for _, g := range groups {
		for _, check := range g.checks {
			f := &finding{Group: g.title, Check: check.Name}
			findings = append(findings, f)
			wg.Go(func() {
				detail, err := check.Run(ctx)
				f.fill(detail, err, check.Fix)
			})
		}
	}
	wg.Wait()
	found := make([]finding, len(findings))
	for i, f := range findings {
		found[i] = *f
	}
	return found
}

// fill notes a check's answer. An error's own advice is better than the check's.
func (f *finding) fill(detail string, err error, fix string) {
	if err == nil {
		f.OK, f.Detail = true, detail
		return
	}
	f.Fault, f.Fix = err.Error(), cmp.Or(hintOf(err), fix)
}

// verdict is an error if no session can work: something that all need is
// missing, or no method is complete.
func verdict(groups []checkGroup, findings []finding) error {
	broken := map[string]bool{}
	for _, f := range findings {
		broken[f.Group] = broken[f.Group] || !f.OK
	}
	methods, works := 0, 0
	for _, g := range groups {
		if g.must && broken[g.title] {
			return fmt.Errorf("a session can't work: see %q above", g.title)
		}
		if g.method {
			methods++
			if !broken[g.title] {
				works++
			}
		}
	}
	if methods > 0 && works == 0 {
		return errors.New("a session can't work: no method is complete")
	}
	return nil
}
