//go:build unix

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/telepresence/telepresence/pkg/doctor"
)

// Checks are what the helper needs of this machine. None starts it.
func Checks() []doctor.Check {
	checks := []doctor.Check{{
		Name: "root for the helper",
		Run: func(context.Context) (string, error) {
			if os.Geteuid() == 0 {
				return "running as root", nil
			}
			sudo, err := exec.LookPath("sudo")
			if err != nil {
				return "", errors.New("this user isn't root, and there is no sudo")
			}
			return sudo, nil
		},
		Fix: "install sudo, run telepresence as root, or use --method inject-tcp",
	}}
	if runtime.GOOS == "linux" {
		checks = append(checks, doctor.Check{
			Name: "a TUN device",
			Run: func(context.Context) (string, error) {
				const path = "/dev/net/tun"
				if _, err := os.Stat(path); err != nil {
					return "", fmt.Errorf("looking for the device: %w", err)
				}
				return path, nil
			},
			Fix: "sudo modprobe tun",
		})
	}
	return checks
}
