package dockerrun

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRunLine(t *testing.T) {
	t.Parallel()
	const ours = "run --network=container:H"
	for words, want := range map[string]string{
		"node:20": "--init -- node:20",
		"--rm -it -v /a:/b -p 9229:9229 node:20 npm start": "--init --rm -i -t -v /a:/b -- node:20 npm start",
		"-itp 80:80 img -p 1:1 --network x":                "--init -i -t -- img -p 1:1 --network x",
		"--init img":                                       "--init -- img",
		"--init=false img":                                 "--init=false -- img",
		"-p8080:80 --publish=1:2 --expose 3 img":           "--init -- img",
		"-e A=b -eC --env D=e --env-file f img":            "--init -e A=b -eC --env D=e --env-file f -- img",
		"--name n -u 1:2 -w /x --entrypoint sh img -c id":  "--init --name n -u 1:2 -w /x --entrypoint sh -- img -c id",
		"--mount type=bind,source=/a,target=/b img":        "--init --mount type=bind,source=/a,target=/b -- img",
		"--dns 1.1.1.1 --add-host a:1.2.3.4 -h me img":     "--init -- img",
		"--rm -- img --rm":                                 "--init --rm -- img --rm",
		"--sig-proxy=false img":                            "--init --sig-proxy=false -- img",
	} {
		a, err := Parse(strings.Fields(words))
		if err != nil {
			t.Errorf("%q: %v", words, err)
			continue
		}
		line, err := a.run(extra{helper: "H"})
		if got := strings.Join(line, " "); err != nil || got != ours+" "+want {
			t.Errorf("%q becomes\n%s, %v\nwant\n%s %s", words, got, err, ours, want)
		}
	}
}

func TestMovedToTheHelper(t *testing.T) {
	t.Parallel()
	a, err := Parse(strings.Fields("-p 9229:9229 --publish=1:2/udp -P --expose 3 --hostname me --dns 1.1.1.1 --dns-search x.y --dns-opt a:1 --add-host h:1.2.3.4 -t -v data:/data --tmpfs /tmp:rw --mount type=volume,dst=/m img"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want []string }{
		"publish": {a.publish, []string{"9229:9229", "1:2/udp"}},
		"expose":  {a.expose, []string{"3"}},
		"dns":     {append(append(a.dns, a.dnsSearch...), a.dnsOption...), []string{"1.1.1.1", "x.y", "a:1"}},
		"hosts":   {append(a.addHost, a.hostname), []string{"h:1.2.3.4", "me"}},
		"targets": {a.targets, []string{"/data", "/tmp", "/m"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
	if !a.publishAll || !a.terminal || a.Image() != "img" {
		t.Errorf("got %+v", a)
	}
	_, host, err := helperConfig(Config{Args: a, ResolvConf: "search s.svc svc\noptions ndots:5\n"}, "image")
	if err != nil {
		t.Fatal(err)
	}
	if len(host.PortBindings) != 2 || !slices.Equal(host.DNS, []string{"198.18.255.2", "1.1.1.1"}) || !slices.Equal(host.DNSSearch, []string{"x.y", "s.svc", "svc"}) {
		t.Errorf("the helper gets %+v", host)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{
		"":                   "no image",
		"--rm":               "no image",
		"-v":                 "-v needs a value",
		"--name":             "--name needs a value",
		"--network host img": "the container's network is the pod's",
		"--net=bridge img":   "the container's network is the pod's",
		"-d img":             "the session lasts as long",
		"-itd img":           "the session lasts as long",
		"-z img":             "no option -z",
	} {
		_, err := Parse(strings.Fields(words))
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %q", words, err, want)
		}
	}
	if _, err := Parse(strings.Fields("--detach=false img")); err != nil {
		t.Error(err)
	}
}

// Whatever is parsed, everything behind the image is the user's command, and
// nothing of the network's is handed on.
func FuzzParse(f *testing.F) {
	f.Add("--rm -it img cmd")
	f.Add("-p 1:1 -- img -p 2")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		a, err := Parse(words)
		if err != nil {
			return
		}
		run, err := a.run(extra{helper: "H"})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(words); n > 0 && run[len(run)-1] != words[n-1] {
			t.Errorf("%q ends with %q", words, run[len(run)-1])
		}
		before := run[:slices.Index(run, "--")]
		if slices.Contains(before[2:], "--publish") || slices.Contains(before[2:], "--network") {
			t.Errorf("%q becomes %q", words, run)
		}
	})
}
