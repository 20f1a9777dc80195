//! Images that come while a container waits for them: it is started at once, and not after its pause.

use super::{Message, Worker};
use crate::pod::{absorb::WAITS, life::Doing, plan::Event, spec};

impl Worker {
    /// Asks whether what containers wait for is there now.
    pub(super) fn look_for_images(&self) {
        let waiting = self.life.members.iter().filter(|(_, member)| {
            member.doing == Doing::Nothing && member.trouble.as_ref().is_some_and(|trouble| WAITS.contains(&&*trouble.reason))
        });
        for (name, _) in waiting {
            let Some(part) = self.part(name) else { continue };
            let wanted = spec::images(&self.pod, &part.spec);
            // One that is pulled anyway has its own time.
            if wanted.iter().any(|(_, policy)| *policy == "Always") {
                continue;
            }
            let wanted: Vec<String> = wanted.into_iter().map(|(image, _)| image.to_owned()).collect();
            let (name, runtime, outbox) = (name.clone(), self.ctx.runtime.clone(), self.outbox.clone());
            tokio::spawn(async move {
                for image in wanted {
                    if !matches!(runtime.image(&image).await, Ok(Some(_))) {
                        return;
                    }
                }
                // A task that has ended needs no image.
                let _ = outbox.send(Message::Event(Event::ImagesArrived { name })).await;
            });
        }
    }
}
