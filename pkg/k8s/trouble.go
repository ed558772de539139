package k8s

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// rightsHint is what to do about a missing right.
const rightsHint = "the edit role is enough, and docs/rights.yaml is a Role that is exactly enough: ask whoever administers the namespace"

// trouble is an error in one sentence for the user, with what to do about it.
type trouble struct {
	what string
	hint string
	err  error // may be nil
}

func (t *trouble) Error() string { return t.what }
func (t *trouble) Unwrap() error { return t.err }

// Hint says what to do about it; it may be empty.
func (t *trouble) Hint() string { return t.hint }

// explain turns what the API client says into one sentence. doing may be empty.
func (c *Cluster) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var known *trouble
	if errors.As(err, &known) {
		if doing == "" {
			return err
		}
		return &trouble{what: doing + ": " + err.Error(), hint: known.hint, err: err}
	}
	what, hint := c.sentence(err)
	if doing != "" {
		what = doing + ": " + what
	}
	return &trouble{what: what, hint: hint, err: err}
}

func (c *Cluster) sentence(err error) (what, hint string) {
	switch {
	case apierrors.IsForbidden(err), denied(err):
		return forbidden(err)
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("the cluster does not accept the credentials of context %q", c.context), "log in to the cluster again"
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return lowerFirst(strings.TrimPrefix(err.Error(), "Internal error occurred: ")), ""
	}
	unknownCA, badHost := x509.UnknownAuthorityError{}, x509.HostnameError{}
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted", ""
	case strings.Contains(err.Error(), "getting credentials"):
		return fmt.Sprintf("the credentials of context %q are not to be had: %s", c.context, bare(err)), "run the kubeconfig's exec command by hand to see why"
	case errors.As(err, &unknownCA), errors.As(err, &badHost):
		return fmt.Sprintf("the certificate of %s is not the one that the kubeconfig expects: %s", c.Server(), bare(err)), "has the cluster been made anew? fetch its kubeconfig again"
	case unreachable(err):
		return fmt.Sprintf("no answer from the cluster at %s: %s", c.Server(), bare(err)), "does the cluster run, and does this machine reach it (VPN, HTTPS_PROXY)?"
	}
	return lowerFirst(bare(err)), ""
}

var (
	cannot    = regexp.MustCompile(`User "([^"]*)" cannot (\w+) resource "([^"]*)" in API group "([^"]*)"(?: in the namespace "([^"]*)"| at the cluster scope)?`)
	overQuota = regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.+), used: (.+), limited: (.+)$`)
)

// denied says whether an admission policy forbids it: the server gives such an answer the status of an object that is invalid.
func denied(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), " is forbidden: ")
}

// forbidden tells a missing right from the admission plugins that answer with the same status.
func forbidden(err error) (what, hint string) {
	text := err.Error()
	if m := cannot.FindStringSubmatch(text); m != nil {
		resource := m[3]
		if m[4] != "" {
			resource += "." + m[4]
		}
		where := "in the cluster"
		if m[5] != "" {
			where = fmt.Sprintf("in namespace %q", m[5])
		}
		return fmt.Sprintf("user %q may not %s %s %s", m[1], m[2], resource, where), "if that is the right --namespace: " + rightsHint
	}
	if m := overQuota.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("quota %q leaves no room: %s wanted, %s of %s used", m[1], m[2], m[3], m[4]), "free some of it, or ask for more"
	}
	if i := strings.Index(text, "violates PodSecurity"); i >= 0 {
		return "the namespace's pod security level does not let it in: it " + text[i:], "give the workload's pod template a securityContext that the level allows"
	}
	if i := strings.Index(text, "forbidden: "); i >= 0 {
		return "not allowed: " + lowerFirst(text[i+len("forbidden: "):]), ""
	}
	return lowerFirst(text), rightsHint
}

// unreachable says whether err means that the server could not be talked to at all.
func unreachable(err error) bool {
	var urlErr *url.Error
	var netErr net.Error
	return errors.As(err, &urlErr) || errors.As(err, &netErr) || errors.Is(err, context.DeadlineExceeded) || utilnet.IsProbableEOF(err)
}

// passing says whether the same request may well succeed a moment later.
func passing(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
			apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsUnexpectedServerError(err)
	}
	return unreachable(err) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// bare is err without the request's URL around it.
func bare(err error) string {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timed out"
	}
	return err.Error()
}

// lowerFirst makes a sentence of the server's fit after a colon; names and abbreviations stay as they are.
func lowerFirst(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if len(word) > 1 && strings.ToLower(word[1:]) == word[1:] {
		s = strings.ToLower(s[:1]) + s[1:]
	}
	return strings.TrimSuffix(s, ".")
}
