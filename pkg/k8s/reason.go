package k8s

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// whyNotReady says in one line what a pod waits for, in the order in which a pod comes to life: a node, volumes and
// network, images, init containers, containers, probes. An error means that it will never be ready; it ends with the
// events that explain it. container is the agent's, whose readiness is not the pod's business.
func whyNotReady(pod *corev1.Pod, container string, events []corev1.Event) (string, error) {
	switch {
	case pod.DeletionTimestamp != nil:
		return "", hopeless(pod, "it is being deleted by somebody else", events)
	case isOver(pod):
		return "", hopeless(pod, howItEnded(pod), events)
	case len(pod.Spec.SchedulingGates) > 0:
		return fmt.Sprintf("waiting for scheduling gate %q to be lifted", pod.Spec.SchedulingGates[0].Name), nil
	}
	if c := condition(pod, corev1.PodScheduled); c == nil || c.Status != corev1.ConditionTrue {
		if c != nil && c.Message != "" {
			return "waiting for a node: " + lowerFirst(firstLine(c.Message)), nil
		}
		return "waiting for a node", nil
	}
	for _, spec := range pod.Spec.InitContainers {
		line, err := initWaits(pod, spec, events)
		if line != "" || err != nil {
			return line, err
		}
	}
	for _, spec := range pod.Spec.Containers {
		line, err := containerWaits(pod, spec, events)
		if line != "" || err != nil {
			return line, err
		}
	}
	return probesWait(pod, container, events), nil
}

// initWaits says what an init container is about; "" when it has done its part.
func initWaits(pod *corev1.Pod, spec corev1.Container, events []corev1.Event) (string, error) {
	status := containerStatus(pod.Status.InitContainerStatuses, spec.Name)
	sidecar := spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
	switch {
	case status == nil:
		return starting(events), nil
	case status.State.Terminated != nil && status.State.Terminated.ExitCode != 0 && !sidecar:
		return "", hopeless(pod, fmt.Sprintf("init container %q ended with exit code %d", spec.Name, status.State.Terminated.ExitCode), events)
	case status.State.Terminated != nil:
		return "", nil
	case status.State.Running != nil && !sidecar:
		return fmt.Sprintf("waiting for init container %q to finish", spec.Name), nil
	case status.State.Running != nil && (status.Started == nil || !*status.Started):
		return fmt.Sprintf("waiting for sidecar %q to start", spec.Name), nil
	case status.State.Waiting != nil && status.State.Waiting.Reason == "CrashLoopBackOff":
		return fmt.Sprintf("sidecar %q crashes again and again", spec.Name), nil
	case status.State.Waiting != nil:
		return stuck(pod, spec, status.State.Waiting, events)
	}
	return "", nil
}

// containerWaits says why a container does not run; "" when it does.
func containerWaits(pod *corev1.Pod, spec corev1.Container, events []corev1.Event) (string, error) {
	status := containerStatus(pod.Status.ContainerStatuses, spec.Name)
	switch {
	case status == nil:
		return starting(events), nil
	case status.State.Terminated != nil && pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
		ended := status.State.Terminated
		what := fmt.Sprintf("container %q ended with exit code %d", spec.Name, ended.ExitCode)
		if ended.Message != "" {
			what += ": " + lowerFirst(firstLine(ended.Message))
		}
		return "", hopeless(pod, what, events)
	case status.State.Waiting != nil:
		return stuck(pod, spec, status.State.Waiting, events)
	}
	return "", nil
}

// stuck explains a container that waits to be started.
func stuck(pod *corev1.Pod, spec corev1.Container, waiting *corev1.ContainerStateWaiting, events []corev1.Event) (string, error) {
	message := lowerFirst(firstLine(waiting.Message))
	switch waiting.Reason {
	case "InvalidImageName", "ErrImageNeverPull", "ErrImageInspect":
		return "", hopeless(pod, fmt.Sprintf("image %q cannot be used: %s", spec.Image, cmp.Or(message, waiting.Reason)), events)
	case "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed":
		tries, last := failedPulls(events, spec.Image)
		what := fmt.Sprintf("image %q cannot be pulled: %s", spec.Image, cmp.Or(last, message))
		if tries >= 3 || tries == 2 && noSuchImage.MatchString(what) {
			return "", hopeless(pod, what, events)
		}
		return what + "; trying again", nil
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError":
		return "", hopeless(pod, fmt.Sprintf("container %q cannot be made: %s", spec.Name, cmp.Or(message, waiting.Reason)), events)
	case "PodInitializing":
		return "", nil // the init containers' turn
	case "ContainerCreating", "":
		return starting(events), nil
	}
	return fmt.Sprintf("waiting for container %q: %s", spec.Name, cmp.Or(message, waiting.Reason)), nil
}

// noSuchImage tells a registry's clear answer from a passing trouble.
var noSuchImage = regexp.MustCompile(`(?i)not found|unauthorized|denied|no such host|manifest unknown`)

// starting says what a pod on a node is about before its containers run, as its last event tells it.
func starting(events []corev1.Event) string {
	for _, event := range slices.Backward(events) {
		message := firstLine(event.Message)
		switch event.Reason {
		case "Pulling":
			return lowerFirst(message)
		case "FailedMount", "FailedAttachVolume":
			return "waiting for a volume: " + lowerFirst(message)
		case "FailedCreatePodSandBox":
			return "waiting for the pod's network: " + lowerFirst(message)
		case "Pulled", "Created", "Started", "Scheduled", "SuccessfulAttachVolume":
			return "waiting for the container to start"
		}
	}
	return "waiting for the node to start the pod"
}

// probesWait says which containers that run are not ready yet.
func probesWait(pod *corev1.Pod, container string, events []corev1.Event) string {
	for _, spec := range pod.Spec.Containers {
		status := containerStatus(pod.Status.ContainerStatuses, spec.Name)
		if spec.Name == container || status == nil || status.Ready {
			continue
		}
		line := fmt.Sprintf("waiting for container %q to be ready", spec.Name)
		for _, event := range slices.Backward(events) {
			if event.Reason == "Unhealthy" && strings.Contains(event.InvolvedObject.FieldPath, "{"+spec.Name+"}") {
				return line + ": " + lowerFirst(firstLine(event.Message))
			}
		}
		return line
	}
	for _, gate := range pod.Spec.ReadinessGates {
		if c := condition(pod, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
			return fmt.Sprintf("waiting for the pod's readiness gate %q", gate.ConditionType)
		}
	}
	return ""
}

// failedPulls counts the tries to pull image that failed, and tells why the last did.
func failedPulls(events []corev1.Event, image string) (tries int, last string) {
	for _, event := range events {
		if event.Reason != "Failed" || !strings.Contains(event.Message, "Failed to pull image") || !strings.Contains(event.Message, image) {
			continue
		}
		tries += max(1, int(event.Count))
		_, why, _ := strings.Cut(firstLine(event.Message), `": `)
		last = lowerFirst(cmp.Or(why, firstLine(event.Message)))
	}
	return tries, last
}

// howItEnded says what ended a pod whose containers are all over.
func howItEnded(pod *corev1.Pod) string {
	if pod.Status.Reason != "" || pod.Status.Message != "" {
		return "it has ended: " + strings.TrimPrefix(pod.Status.Reason+": "+lowerFirst(firstLine(pod.Status.Message)), ": ")
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			what := fmt.Sprintf("container %q ended with exit code %d", status.Name, ended.ExitCode)
			if ended.Message != "" {
				return what + ": " + lowerFirst(firstLine(ended.Message))
			}
			return strings.TrimSuffix(what+" ("+ended.Reason+")", " (Error)")
		}
	}
	return "it has ended"
}

// hopeless is the error of a pod that will not be ready, with the last events that explain it.
func hopeless(pod *corev1.Pod, what string, events []corev1.Event) error {
	const most = 3
	var told []string
	for _, event := range slices.Backward(events) {
		message := firstLine(event.Message)
		line := event.Reason + ": " + message
		news := !strings.HasPrefix(message, "Error: ") && !slices.Contains(told, line)
		if event.Type == corev1.EventTypeWarning && news && len(told) < most {
			told = append(told, line)
		}
	}
	slices.Reverse(told)
	hint := ""
	if len(told) > 0 {
		hint = "the cluster's events: " + strings.Join(told, " | ")
	}
	return &trouble{what: fmt.Sprintf("pod %q cannot start: %s", pod.Name, what), hint: hint}
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// sortEvents puts the oldest first.
func sortEvents(events []corev1.Event) {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return happened(a).Compare(happened(b)) })
}

func happened(event corev1.Event) time.Time {
	switch {
	case event.Series != nil:
		return event.Series.LastObservedTime.Time
	case !event.LastTimestamp.IsZero():
		return event.LastTimestamp.Time
	case !event.EventTime.IsZero():
		return event.EventTime.Time
	}
	return event.CreationTimestamp.Time
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
