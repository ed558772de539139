package undo

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func sample() Record {
	return Record{
		Version: Version, Session: "0a1b2c3d", Owner: "ada@laptop", Workload: "deployment/web",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Restore: []Request{{
			What: "scale deployment web to 3", Method: "PATCH", Path: "/apis/apps/v1/namespaces/shop/deployments/web/scale",
			ContentType: "application/merge-patch+json", Body: json.RawMessage(`{"spec":{"replicas":3}}`), Ignore: []int{404},
		}},
		Remove: []Request{{What: "delete pod web-x", Method: "DELETE", Path: "/api/v1/namespaces/shop/pods/web-x", Ignore: []int{404}}},
	}
}

// compact is a record whose bodies have no spaces that Marshal may have added.
func compact(t *testing.T, r Record) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMarshalParse(t *testing.T) {
	t.Parallel()
	text, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if compact(t, got) != compact(t, sample()) {
		t.Errorf("got %s", compact(t, got))
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Record){
		"a newer version":   func(r *Record) { r.Version++ },
		"another method":    func(r *Record) { r.Restore[0].Method = "POST" },
		"no object":         func(r *Record) { r.Remove[0].Path = "/healthz" },
		"a way up":          func(r *Record) { r.Remove[0].Path = "/api/v1/../../x" },
		"a query":           func(r *Record) { r.Remove[0].Path = "/api/v1/pods?x=y" },
		"an escaped letter": func(r *Record) { r.Remove[0].Path = "/api/v1/%2e%2e" },
	} {
		r := sample()
		change(&r)
		text, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := Parse([]byte(`{"version":1} {}`)); err == nil {
		t.Error("two values were taken for a record")
	}
	if _, err := Parse([]byte(`{"version":1,"shell":"rm"}`)); err == nil {
		t.Error("an unknown field was taken")
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	var asked []string
	status := map[string]int{"PATCH": 200, "DELETE": 404}
	do := func(_ context.Context, method, path, _ string, _ []byte) (int, []byte, error) {
		asked = append(asked, method+" "+path)
		return status[method], []byte(`{"message":"no such thing"}`), nil
	}
	all := slices.Concat(sample().Restore, sample().Remove)
	for range 2 {
		if err := Apply(t.Context(), do, all); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 4 {
		t.Errorf("asked for %q", asked)
	}

	status["PATCH"] = 403
	var refused *StatusError
	err := Apply(t.Context(), do, all)
	if !errors.As(err, &refused) || !refused.Forbidden() {
		t.Errorf("error is %v", err)
	}
	if want := "scale deployment web to 3: the server answered 403: no such thing"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if len(asked) != 5 {
		t.Errorf("went on behind a refusal: %q", asked)
	}
}

// A request that finds another session in this one's place ends all that comes
// after it; one that is not there any more ends nothing.
func TestApplySuperseded(t *testing.T) {
	t.Parallel()
	guard := Request{What: "see whose it is", Method: "PATCH", Path: "/api/v1/guard", Ignore: []int{404}, Stop: []int{422}}
	all := append([]Request{guard}, sample().Remove...)
	for status, want := range map[int]int{200: 2, 404: 2, 422: 1} {
		asked := 0
		do := func(_ context.Context, method, _, _ string, _ []byte) (int, []byte, error) {
			asked++
			if method == "PATCH" {
				return status, nil, nil
			}
			return 200, nil, nil
		}
		err := Apply(t.Context(), do, all)
		if asked != want || errors.Is(err, ErrSuperseded) != (status == 422) || status != 422 && err != nil {
			t.Errorf("%d: %d requests, and %v", status, asked, err)
		}
	}
}

// A server that is busy is asked again, one that says no is not.
func TestApplyAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int
		asked   int
		refused bool
	}{
		"conflict, then done": {[]int{409, 200}, 2, false},
		"busy, then gone":     {[]int{429, 503, 404}, 3, false},
		"busy for long":       {[]int{500, 502, 503, 504, 429, 200}, tries, true},
		"no":                  {[]int{403, 200}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				do := func(context.Context, string, string, string, []byte) (int, []byte, error) {
					asked++
					return c.answers[asked-1], nil, nil
				}
				err := Apply(t.Context(), do, sample().Restore)
				if asked != c.asked || (err != nil) != c.refused {
					t.Errorf("%d requests, and %v", asked, err)
				}
			})
		})
	}
}

// Who waits for a busy server stops waiting when told to.
func TestApplyEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	do := func(context.Context, string, string, string, []byte) (int, []byte, error) {
		cancel()
		return 503, nil, nil
	}
	var refused *StatusError
	if err := Apply(ctx, do, sample().Restore); !errors.As(err, &refused) {
		t.Errorf("error is %v", err)
	}
}

func TestInCluster(t *testing.T) {
	t.Parallel()
	type request struct{ Method, Path, ContentType, Auth, Body string }
	got := make(chan request, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(body)}
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600),
		os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	do, err := inCluster(dir, at.Hostname(), at.Port())
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(t.Context(), do, sample().Restore); err != nil {
		t.Fatal(err)
	}
	want := request{"PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "application/merge-patch+json", "Bearer secret", `{"spec":{"replicas":3}}`}
	if r := <-got; !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if _, err := inCluster(t.TempDir(), at.Hostname(), at.Port()); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("without credentials the error is %v", err)
	}
}

// Whatever is parsed names an object and can be written and parsed again.
func FuzzParse(f *testing.F) {
	text, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"restore":[{"method":"PUT","path":"/api/"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
