package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
)

// kubeconfig is the text for whom args name: "admin", or "edit NAMESPACE
// [USER]", for whom namespace and binding are made where they don't exist.
func (c *cluster) kubeconfig(ctx context.Context, args []string) (string, error) {
	if len(args) == 1 && args[0] == "admin" {
		text, err := os.ReadFile(c.path("admin.kubeconfig"))
		if err != nil {
			return "", fmt.Errorf("no cluster runs here: %w", err)
		}
		return string(text), nil
	}
	if len(args) < 2 || len(args) > 3 || args[0] != "edit" {
		return "", errUsage
	}
	namespace, user := args[1], args[1]+"-user"
	if len(args) == 3 {
		user = args[2]
	}
	name := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	if !name.MatchString(namespace) || !name.MatchString(user) {
		return "", fmt.Errorf("%q or %q is no name that Kubernetes takes", namespace, user)
	}
	n, err := c.network()
	if err != nil {
		return "", err
	}
	if err := c.apply(ctx, fmt.Sprintf(editRights, namespace, user)); err != nil {
		return "", err
	}
	a, err := c.authority()
	if err != nil {
		return "", err
	}
	return a.kubeconfig(n, subject{name: user}, namespace)
}

const editRights = `
apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: edit-%[2]s
  namespace: %[1]s
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: edit
subjects:
- apiGroup: rbac.authorization.k8s.io
  kind: User
  name: %[2]s
`
