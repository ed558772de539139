package dockerrun

import (
	"context"
	"log/slog"

	"github.com/telepresence/telepresence/pkg/doctor"
)

// Checks are what --docker-run needs.
func Checks() []doctor.Check {
	return []doctor.Check{{
		Name: "a docker engine",
		Run: func(ctx context.Context) (string, error) {
			e, err := Connect(ctx, ConnectConfig{CLI: "docker", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return "", err
			}
			detail := e.client.DaemonHost() + ", " + e.arch
			if !e.SharesFiles() {
				detail += ", elsewhere: containers get copies of the pod's files"
			}
			return detail, e.Close()
		},
	}}
}
