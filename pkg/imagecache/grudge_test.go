package imagecache

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestGrudges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g grudges
		g.hold(slow, "a", time.Minute)
		g.hold(shunned, "a", 10*time.Minute)
		g.hold(shunned, "gone", time.Minute)
		for _, tt := range []struct {
			after         time.Duration
			slow, shunned bool
		}{{0, true, true}, {time.Minute, false, true}, {9 * time.Minute, false, false}} {
			time.Sleep(tt.after)
			if got := [2]bool{g.held(slow, "a"), g.held(shunned, "a")}; got != [2]bool{tt.slow, tt.shunned} {
				t.Errorf("%s later: slow %t, shunned %t", tt.after, got[0], got[1])
			}
		}
		g.hold(slow, "b", time.Minute)
		if len(g.until) != 1 {
			t.Errorf("it remembers %v", g.until)
		}
	})
}
