package serverless

import (
	"slices"
	"strconv"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// warmKeys tell the settings of one warmer from a map of warmers by name, as the plugin has them since version 5.
var warmKeys = words(`enabled concurrency events alias architecture cleanFolder clientContext folderName logRetentionInDays memorySize name
	package payload payloadRaw prewarm role roleName tags timeout tracing verbose vpc environment`)

// warm is how many Instances serverless-plugin-warmup would keep warm of a function by pinging it. ebb keeps as many provisioned
// instead: nothing is sent, and the handler needs no case for it. When the warmers ping is of no account.
func (c *compiler) warm(fn *function) int {
	if !c.plugins["serverless-plugin-warmup"] {
		return 0
	}
	custom, own := c.doc.Get("custom").Get("warmup"), fn.n.Get("warmup")
	warmers := []cfn.Entry{{Key: "", Value: custom}}
	if !isWarmer(custom) {
		warmers = mapEntries(custom)
	}
	most := 0
	for _, w := range warmers {
		mine := own
		if own != nil && own.Kind == cfn.Map && !isWarmer(own) {
			mine = own.Get(w.Key)
		}
		enabled, n := w.Value.Get("enabled"), w.Value.Get("concurrency")
		switch {
		case mine.IsNull():
		case mine.Kind == cfn.Map:
			enabled, n = or2(mine.Get("enabled"), enabled), or2(mine.Get("concurrency"), n)
		default:
			enabled = mine
		}
		if !c.warmHere(enabled) {
			continue
		}
		count := 1
		if s, ok := n.Text(); ok {
			if k, err := strconv.Atoi(s); err == nil && k > 0 {
				count = k
			} else {
				c.l.Warnf(n.Pos, "bad-value", "Write a whole number from 1.", "the concurrency of a warmer of function %q is %q; one Instance is kept", fn.key, s)
			}
		}
		most = max(most, count)
	}
	return most
}

// isWarmer says whether a map holds the settings of a warmer, not warmers by name. An empty one does.
func isWarmer(n *cfn.Node) bool {
	for _, e := range mapEntries(n) {
		if !slices.Contains(warmKeys, e.Key) {
			return false
		}
	}
	return true
}

// warmHere says whether `enabled`, a yes or no, a stage or a list of stages, says yes.
func (c *compiler) warmHere(n *cfn.Node) bool {
	if n.IsNull() || isPoison(n) {
		return false
	}
	if n.Kind == cfn.List {
		return slices.ContainsFunc(n.Items, c.warmHere)
	}
	s, _ := n.Text()
	return isTrue(n) || s == "true" || s != "" && s == c.stage
}
