package deploy

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/matrix-org/complement/config"
)

// server is one homeserver process and what it keeps across restarts.
type server struct {
	name, ip, dir string
	env           []string
	logPath       string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// running tells whether the process is there and not paused by a test that never resumed it.
func (s *server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
	}
	// a failed test may have left it paused
	return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT) == nil
}

// start runs the server's command and waits until it answers.
func (s *server) start(cfg *config.Complement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	command := os.Getenv(EnvCommand)
	if command == "" {
		return fmt.Errorf("%s is not set", EnvCommand)
	}
	logFile, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Env, cmd.Dir = s.env, s.dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done, begun := make(chan struct{}), make(chan error, 1)
	go func() {
		// the parent-death signal is tied to this thread, so keep it
		runtime.LockOSThread()
		err := cmd.Start()
		begun <- err
		if err == nil {
			cmd.Wait()
		}
		logFile.Close()
		close(done)
	}()
	if err := <-begun; err != nil {
		return err
	}
	s.cmd, s.done = cmd, done

	url := fmt.Sprintf("http://%s:%d/_matrix/client/versions", s.ip, clientPort)
	hc := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for stop := time.Now().Add(cfg.SpawnHSTimeout); time.Now().Before(stop); time.Sleep(50 * time.Millisecond) {
		select {
		case <-done:
			return fmt.Errorf("%s: exited while starting: %s\n%s", s.name, cmd.ProcessState, s.tail())
		default:
		}
		res, err := hc.Get(url)
		if err != nil {
			last = err
			continue
		}
		res.Body.Close()
		if res.StatusCode == 200 {
			return nil
		}
		last = fmt.Errorf("HTTP %s", res.Status)
	}
	return fmt.Errorf("%s: not up in %v: %v\n%s", s.name, cfg.SpawnHSTimeout, last, s.tail())
}

// stop ends the process group: SIGTERM, then SIGKILL after grace.
func (s *server) stop(grace time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	pgid := s.cmd.Process.Pid
	syscall.Kill(-pgid, syscall.SIGCONT)
	if grace > 0 {
		syscall.Kill(-pgid, syscall.SIGTERM)
		select {
		case <-s.done:
		case <-time.After(grace):
		}
	}
	syscall.Kill(-pgid, syscall.SIGKILL) // whatever the leader left behind
	<-s.done
}

func (s *server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return syscall.Kill(-s.cmd.Process.Pid, sig)
}

func (s *server) tail() string {
	body, _ := os.ReadFile(s.logPath)
	if len(body) > 4000 {
		body = body[len(body)-4000:]
	}
	return string(body)
}
