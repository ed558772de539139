package plan

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// chooseStrategy decides how the originals go. Adopting is best where it can be
// done, since the ReplicaSet then mends what a crash leaves.
func (p *Plan) chooseStrategy(s Snapshot) {
	w := p.Workload
	switch {
	case w == nil:
		p.Strategy, p.Reason = Leave, "nothing is replaced"
		return
	case w.Replicas == 0:
		p.Strategy, p.Reason = Leave, fmt.Sprintf("%s has no replicas", p.Target)
		return
	}
	p.Strategy = Scale
	if why := p.noTwo(s); why != "" {
		p.OriginalsFirst, p.Reason = true, why
		return
	}
	switch scaler := scalerOf(s.HPAs, w); {
	case w.Kind != "Deployment":
		p.Reason = fmt.Sprintf("a %s can't take the proxy for one of its pods", w.Kind)
	case scaler != nil:
		p.Reason = fmt.Sprintf("autoscaler %s would add originals beside the proxy", scaler.Name)
	case w.ReplicaSet == nil || w.ReplicaSet.Hash == "":
		p.Reason = fmt.Sprintf("%s has no ReplicaSet for its present template yet", p.Target)
	case w.Paused && older(s, w) > 0:
		p.Reason = fmt.Sprintf("%s is paused, with pods of several templates", p.Target)
	default:
		p.Strategy, p.Reason = Adopt, fmt.Sprintf("ReplicaSet %s takes the proxy for one of its pods", w.ReplicaSet.Name)
	}
}

// scalerOf is the autoscaler that scales the workload, or nil.
func scalerOf(hpas []autoscalingv2.HorizontalPodAutoscaler, w *Workload) *autoscalingv2.HorizontalPodAutoscaler {
	for i, h := range hpas {
		if ref := h.Spec.ScaleTargetRef; ref.Kind == w.Kind && ref.Name == w.Name {
			return &hpas[i]
		}
	}
	return nil
}

// older counts the pods of a Deployment's former templates.
func older(s Snapshot, w *Workload) int {
	n := 0
	for _, pod := range s.Originals {
		if hash, ok := pod.Labels[TemplateHash]; ok && w.ReplicaSet != nil && hash != w.ReplicaSet.Hash {
			n++
		}
	}
	return n
}
