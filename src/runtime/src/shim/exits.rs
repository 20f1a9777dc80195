//! Processes that end: children at their work, commands, containers.

use super::{
    jobs::Work,
    protocol::Reply,
    serve::{Connection, Role, Shim, trim},
    state::Life,
};
use crate::NamespaceMode;

/// Exits of processes that are not known yet: commands that end before their parent has said who they are.
const EARLY_EXITS: usize = 64;

impl Shim {
    /// Handles an exit that came before its process was known.
    pub(super) fn recall(&mut self, pid: u32) {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == pid)
            && let Some((pid, status)) = self.early.remove(at)
        {
            self.exited(pid, status);
        }
    }

    pub(super) fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: `status` is a place for an integer.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            let Ok(pid @ 1..) = u32::try_from(pid) else { break };
            self.exited(pid, status);
        }
    }

    fn exited(&mut self, pid: u32, status: i32) {
        let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
        if let Some(index) = self.jobs.iter().position(|job| job.child == pid) {
            // A child says everything before it ends; one that did not, never will.
            if let Some(said) = &mut self.jobs[index].result {
                said.read();
                said.ended = true;
            }
            let is_init = matches!(self.jobs[index].work, Work::Create(_));
            self.finish_jobs();
            // An init that was made and has ended since is a container's end too.
            if !is_init {
                return;
            }
        }
        let command = self
            .connections
            .iter()
            .find(|(_, connection)| matches!(connection.role, Role::Command(known) if known == pid))
            .map(|(id, _)| *id);
        if let Some(id) = command {
            self.answer(id, &Reply::Exited(code), &[]);
            self.connections.remove(&id);
            return;
        }
        let Some(id) = self.containers.iter().find(|(_, container)| container.life.pid == Some(pid)).map(|(id, _)| id.clone()) else {
            // A command, or an init of another runtime's making, if one is on its way; else a child whose work is done.
            if self.jobs.iter().any(|job| matches!(job.work, Work::Command(_) | Work::Create(_))) {
                self.early.truncate(EARLY_EXITS - 1);
                self.early.push_front((pid, status));
            }
            return;
        };
        // What an init that could not execute has said is all there is to say of its exit.
        if let Some(index) = self.jobs.iter().position(|job| matches!(&job.work, Work::Start(of) if *of == id)) {
            if let Some(said) = &mut self.jobs[index].trouble {
                said.read();
                said.ended = true;
            }
            self.finish_jobs();
        }
        if let Some(container) = self.containers.get_mut(&id) {
            let shared = self.held.record.spec.pid != NamespaceMode::Container || container.record.spec.pid_target.is_some();
            let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
            container.exited(code, signal, shared);
            let life = container.life.clone();
            self.tell_exit(&id, life, code);
        }
        trim();
    }

    fn tell_exit(&mut self, id: &str, life: Life, code: i32) {
        let watching = |connection: &Connection| matches!(connection.role, Role::Watching);
        let watchers: Vec<u64> = self.connections.iter().filter(|(_, c)| watching(c)).map(|(id, _)| *id).collect();
        for watcher in watchers {
            self.answer(watcher, &Reply::Exit { id: id.to_owned(), life: life.clone() }, &[]);
        }
        let attached: Vec<u64> =
            self.connections.iter().filter(|(_, c)| matches!(&c.role, Role::Attached(to) if to == id)).map(|(id, _)| *id).collect();
        for connection in attached {
            self.answer(connection, &Reply::Exited(code), &[]);
            self.close(connection);
        }
    }
}
