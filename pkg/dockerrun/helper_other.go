//go:build !linux

package dockerrun

import (
	"context"
	"fmt"
	"io"
)

// deviceMTU is that of the helper's device.
const deviceMTU = 65520

// Helper is the program inside the helper container, which is a Linux one.
func Helper(_ context.Context, _ io.Reader, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "helper: this program is not for Linux")
	return 1
}
