#[derive(Clone)]
pub struct Lane;
impl Lane {
    pub async fn derive(
        &self,
        _: super::BackingKeyId,
        _: super::KeyCheck,
        _: Vec<u8>,
    ) -> super::Result<crate::secret::Key> {
        Err(super::Error::BadRequest(""))
    }
    pub async fn generate(
        &self,
        _: super::BackingKeyId,
        _: super::Scheme,
    ) -> super::Result<super::Evidence> {
        Err(super::Error::BadRequest(""))
    }
    pub async fn destroy(&self, _: super::BackingKeyId) -> super::Result<()> {
        Err(super::Error::BadRequest(""))
    }
    pub async fn random(&self, _: usize) -> super::Result<crate::secret::Secret> {
        Err(super::Error::BadRequest(""))
    }
}
