// Package install puts the image cache into a cluster, asks how it is, gives it
// images, and takes it away again without a trace.
package install

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/telepresence/telepresence/pkg/imagecache"
)

// Namespace is where all of the cache is: who deletes it deletes the cache.
const Namespace = "telepresence-imagecache"

// The names in it.
const (
	name       = "telepresence-imagecache" // service account, service, DaemonSet
	secretName = "telepresence-imagecache"
	imagesName = "images" // ConfigMap: the images that were pushed, by reference
	tokenKey   = "token"
	label      = "app.kubernetes.io/name"
)

// Options say how the cache is to be.
type Options struct {
	Image string // of the node program
	Repos []string
	Limit int64 // bytes a node keeps; 0 means imagecache.DefaultLimit
	// PullNever says that the nodes have the image already, and no registry does.
	PullNever bool
	// Load brings the image to the cluster's nodes before they need it. Nil: they
	// pull it.
	Load func(ctx context.Context, nodes []corev1.Node, tell func(string)) error
}

func labels() map[string]string { return map[string]string{label: name} }

func meta(object string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: object, Namespace: Namespace, Labels: labels()}
}

// namespace is privileged, as its pods use their node's network.
func namespace() *corev1.Namespace {
	l := labels()
	l["pod-security.kubernetes.io/enforce"] = "privileged"
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, Labels: l}}
}

// nodeRole lets a node see who else is there, and nothing else.
func nodeRole() *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: meta(name), Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{discoveryv1.GroupName}, Resources: []string{"endpointslices"}, Verbs: []string{"get", "list", "watch"},
	}}}
}

// readerRole lets every user see which images there are, and whether all nodes
// are ready: what a swap asks before it counts on the cache.
func readerRole() *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: meta(name + "-reader"), Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{imagesName}, Verbs: []string{"get"}},
		{APIGroups: []string{appsv1.GroupName}, Resources: []string{"daemonsets"}, ResourceNames: []string{name}, Verbs: []string{"get"}},
	}}
}

func binding(role string, subject rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: meta(role),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}
}

// renewAt is how long before their end the certificates are renewed. Not
// sooner: the nodes learn of new ones one after the other, within two minutes,
// and until then those who have refuse those who haven't.
const renewAt = 90 * 24 * time.Hour

// secret holds the certificates and the token for writing: what there is, or,
// near the certificates' end, new ones. The old authority then goes on being
// trusted while the nodes learn of the new one.
func secret(now time.Time, old *corev1.Secret) (*corev1.Secret, error) {
	var before []byte
	if old != nil {
		has := imagecache.Certificates{Cert: old.Data[imagecache.CertFile]}
		if end, err := has.Expires(); err == nil && end.Sub(now) > renewAt {
			return &corev1.Secret{ObjectMeta: meta(secretName), Data: old.Data}, nil
		}
		before = old.Data[imagecache.AuthorityFile]
	}
	certs, err := imagecache.NewCertificates(now, before)
	if err != nil {
		return nil, err
	}
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		return nil, fmt.Errorf("making a token: %w", err)
	}
	text := []byte(hex.EncodeToString(token))
	if old != nil && len(old.Data[tokenKey]) > 0 {
		text = old.Data[tokenKey] // the nodes read it once
	}
	return &corev1.Secret{ObjectMeta: meta(secretName), Data: map[string][]byte{
		imagecache.AuthorityFile: certs.Authority, imagecache.CertFile: certs.Cert, imagecache.KeyFile: certs.Key, tokenKey: text,
	}}, nil
}

// service is headless: its EndpointSlices are the list of live nodes.
func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone, Selector: labels(),
		Ports: []corev1.ServicePort{{Name: "peers", Port: imagecache.DefaultPeerPort}},
	}}
}

// daemonSet runs the cache on every node that takes pods, whatever its taints.
func daemonSet(o Options) *appsv1.DaemonSet {
	limit := o.Limit
	if limit == 0 {
		limit = imagecache.DefaultLimit
	}
	args := []string{"--limit=" + strconv.FormatInt(limit, 10)}
	for _, r := range o.Repos {
		args = append(args, "--repo="+r)
	}
	pull := corev1.PullIfNotPresent
	if o.PullNever {
		pull = corev1.PullNever
	}
	port := intstr.FromInt32(imagecache.DefaultPort)
	probe := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Path: "/healthz", Port: port}}
	field := func(env, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: env, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	all := intstr.FromString("100%")
	return &appsv1.DaemonSet{ObjectMeta: meta(name), Spec: appsv1.DaemonSetSpec{
		Selector:       &metav1.LabelSelector{MatchLabels: labels()},
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &all}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels()}, Spec: corev1.PodSpec{
			ServiceAccountName: name, HostNetwork: true, DNSPolicy: corev1.DNSDefault, PriorityClassName: "system-node-critical",
			TerminationGracePeriodSeconds: new(int64(10)),
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(65534)), RunAsGroup: new(int64(65534)), FSGroup: new(int64(65534)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "cache", Image: o.Image, ImagePullPolicy: pull, Command: []string{"/telepresence-imagecache"}, Args: args,
				Env: []corev1.EnvVar{field("NODE_NAME", "spec.nodeName"), field("POD_NAMESPACE", "metadata.namespace")},
				Ports: []corev1.ContainerPort{
					{Name: "peers", ContainerPort: imagecache.DefaultPeerPort, HostPort: imagecache.DefaultPeerPort},
				},
				ReadinessProbe: &corev1.Probe{ProbeHandler: probe, PeriodSeconds: 2},
				LivenessProbe:  &corev1.Probe{ProbeHandler: probe, PeriodSeconds: 20, FailureThreshold: 3},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
				}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "cache", MountPath: "/cache"}, {Name: "certs", MountPath: "/certs", ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secretName}}},
			},
		}},
	}}
}
