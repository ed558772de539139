// Command inclusterclient is a program written to run in a pod, and only there:
// client-go's configuration of a pod, and nothing that knows of telepresence. It
// prints who it is to the cluster and what a ConfigMap of its namespace says.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// namespaceFile is where a pod finds the name of its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace" //nolint:gosec // a path, no secret

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: inclusterclient CONFIGMAP")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "inclusterclient:", err)
		os.Exit(1)
	}
}

func run(name string) error {
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile(namespaceFile)
	if err != nil {
		return err
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("asking %s who I am: %w", config.Host, err)
	}
	fmt.Printf("%s is %s\n", config.Host, review.Status.UserInfo.Username)
	m, err := client.CoreV1().ConfigMaps(strings.TrimSpace(string(namespace))).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading configmap %s: %w", name, err)
	}
	for key, value := range m.Data {
		fmt.Printf("%s: %s\n", key, value)
	}
	return nil
}
