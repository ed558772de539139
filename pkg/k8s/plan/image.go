package plan

import corev1 "k8s.io/api/core/v1"

// The volume by which the original's image hands over the environment that it
// sets.
const (
	imageVolume = "telepresence-image"
	imageDir    = "/.telepresence-image" // as pkg/proxy reads it
)

// readImage has the original's image say what environment it sets, which stands
// nowhere in the cluster: the image itself may have no program that could be
// asked. One init container copies the agent into a volume, the next runs it
// there in the original's image, and the proxy reads what it has written. Both
// are the last of the init containers, and ask for no more than the proxied
// container does.
func (p *Plan) readImage(original corev1.Container, agent *corev1.Container) {
	mount := corev1.VolumeMount{Name: imageVolume, MountPath: imageDir}
	copied := corev1.Container{
		Name: "telepresence-copy", Image: agent.Image, ImagePullPolicy: agent.ImagePullPolicy,
		Command:      []string{"/telepresence-agent", "install", imageDir + "/agent"},
		VolumeMounts: []corev1.VolumeMount{mount}, Resources: *agent.Resources.DeepCopy(), SecurityContext: agent.SecurityContext.DeepCopy(),
	}
	read := corev1.Container{
		Name: "telepresence-image", Image: original.Image, ImagePullPolicy: original.ImagePullPolicy,
		Command:      []string{imageDir + "/agent", "environ", "--save=" + imageDir + "/environ"},
		VolumeMounts: []corev1.VolumeMount{mount}, Resources: *agent.Resources.DeepCopy(), SecurityContext: original.SecurityContext,
	}
	spec := &p.Pod.Spec
	spec.InitContainers = append(spec.InitContainers, copied, read)
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: imageVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	mount.ReadOnly = true
	agent.VolumeMounts = append(agent.VolumeMounts, mount)
}
