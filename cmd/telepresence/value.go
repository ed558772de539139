package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/telepresence/telepresence/pkg/k8s/plan"
	"github.com/telepresence/telepresence/pkg/session"
)

// value is the value of an option: a pflag.Value made of three functions.
type value struct {
	set    func(string) error
	text   func() string
	reset  func() // forgets what was set, before the first of several is
	isBool bool
}

// Set parses an argument.
func (v *value) Set(arg string) error { return v.set(arg) }

// String is the value as it would be typed.
func (v *value) String() string {
	if v == nil || v.text == nil {
		return "" // pflag asks a zero value too
	}
	return v.text()
}

// Type is what completion scripts call the kind of value.
func (v *value) Type() string {
	if v.isBool {
		return "bool"
	}
	return "string"
}

// checked is an option whose argument is kept as it was typed once parse has
// nothing against it.
func checked(p *string, parse func(string) error) *value {
	return &value{
		set: func(arg string) error {
			if err := parse(arg); err != nil {
				return err
			}
			*p = arg
			return nil
		},
		text:  func() string { return *p },
		reset: func() { *p = "" },
	}
}

// several is checked for an option that may be given several times.
func several(p *[]string, parse func(string) error) *value {
	return &value{
		set: func(arg string) error {
			if err := parse(arg); err != nil {
				return err
			}
			*p = append(*p, arg)
			return nil
		},
		text:  func() string { return strings.Join(*p, ",") },
		reset: func() { *p = nil },
	}
}

func textValue(p *string) *value     { return checked(p, parseText) }
func nameValue(p *string) *value     { return checked(p, parseName) }
func dottedValue(p *string) *value   { return checked(p, parseDotted) }
func targetValue(p *string) *value   { return checked(p, parseTarget) }
func absoluteValue(p *string) *value { return checked(p, parseAbsolute) }
func formatValue(p *string) *value {
	return checked(p, func(arg string) error { return oneOf(arg, "text", "json") })
}

func textsValue(p *[]string) *value     { return several(p, parseText) }
func portValue(p *[]string) *value      { return several(p, parsePort) }
func exposeValue(p *[]string) *value    { return several(p, parsePorts) }
func alsoProxyValue(p *[]string) *value { return several(p, parseAlsoProxy) }

// listValue is for options that swallow the line; splitLine fills them.
func listValue(p *[]string) *value {
	return several(p, func(string) error { return nil })
}

func switchValue(p *bool) *value {
	return &value{
		set: func(arg string) error {
			b, err := strconv.ParseBool(arg)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", arg)
			}
			*p = b
			return nil
		},
		text:   func() string { return strconv.FormatBool(*p) },
		reset:  func() { *p = false },
		isBool: true,
	}
}

func methodValue(p *session.Method) *value {
	return &value{
		set: func(arg string) error {
			*p = session.Method(arg)
			return oneOf(arg, string(session.MethodInjectTCP), string(session.MethodVPNTCP), string(session.MethodContainer))
		},
		text:  func() string { return string(*p) },
		reset: func() { *p = session.MethodAuto },
	}
}

// mountValue takes true, false (any case, as people's scripts have it) or an
// absolute path.
func mountValue(p *session.Mount) *value {
	return &value{
		set: func(arg string) error {
			switch strings.ToLower(arg) {
			case "true":
				*p = session.Mount{}
				return nil
			case "false":
				*p = session.Mount{Off: true}
				return nil
			}
			*p = session.Mount{Path: arg}
			if !filepath.IsAbs(arg) {
				return fmt.Errorf("%q is neither true, false nor an absolute path", arg)
			}
			return nil
		},
		text: func() string {
			switch {
			case p.Off:
				return "false"
			case p.Path == "":
				return "true"
			}
			return p.Path
		},
		reset: func() { *p = session.Mount{} },
	}
}

func oneOf(arg string, known ...string) error {
	if slices.Contains(known, arg) {
		return nil
	}
	last := len(known) - 1
	return fmt.Errorf("%q is not one of %s and %s", arg, strings.Join(known[:last], ", "), known[last])
}

func parseText(arg string) error {
	if arg == "" {
		return fmt.Errorf("it is empty")
	}
	return nil
}

// dnsLabel is what Kubernetes takes as the name of a service (RFC 1123 label).
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func parseName(arg string) error {
	if !dnsLabel.MatchString(arg) {
		return fmt.Errorf("%q is no name (lower-case letters, digits and dashes, at most 63)", arg)
	}
	return nil
}

// parseDotted takes what most objects may be named: labels joined by dots.
func parseDotted(arg string) error {
	for label := range strings.SplitSeq(arg, ".") {
		if len(arg) > 253 || !dnsLabel.MatchString(label) {
			return fmt.Errorf("%q is no name (lower-case letters, digits, dashes and dots)", arg)
		}
	}
	return nil
}

func parseAbsolute(arg string) error {
	if !filepath.IsAbs(arg) {
		return fmt.Errorf("%q is no absolute path", arg)
	}
	return nil
}

// parseAlsoProxy takes an address, a range or a host name.
func parseAlsoProxy(arg string) error {
	if _, err := netip.ParseAddr(arg); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(arg); err == nil {
		return nil
	}
	name := strings.TrimSuffix(arg, ".")
	labels := strings.Split(name, ".")
	numeric := regexp.MustCompile(`^[0-9]+$`).MatchString(labels[len(labels)-1])
	for _, label := range labels {
		if numeric || len(name) > 253 || !regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?$`).MatchString(label) {
			return fmt.Errorf("%q is neither a host name, an address nor a range such as 10.0.0.0/8", arg)
		}
	}
	return nil
}

// The grammar of ports and workloads is the plan's.

func parsePort(arg string) error   { _, err := plan.ParsePort(arg); return err }
func parsePorts(arg string) error  { _, err := plan.ParseExpose(arg); return err }
func parseTarget(arg string) error { _, err := plan.ParseTarget(arg); return err }
