//! The push-rules API: client-server API, "Push Rules".

use axum::{Router, extract::State, response::Response};
use millrace_domain::{
    Env,
    accounts::Requester,
    push_rules::{self, PushRuleError},
};
use millrace_model::rules::push::change::{self, AddRuleError, ChangeRuleError, Placement};
use ruma::{
    api::{
        client::push::{
            PushRule, RuleKind, delete_pushrule, get_pushrule, get_pushrule_actions,
            get_pushrule_enabled, get_pushrules_all, get_pushrules_global_scope, set_pushrule,
            set_pushrule_actions, set_pushrule_enabled,
        },
        error::ErrorKind,
    },
    push::{AnyPushRuleRef, ConditionalPushRule, ConditionalPushRuleInit},
};

use super::{
    error::ApiError, extract::Matrix, json::raw_json, limits::EndpointClass, router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(all)
        .matrix(global)
        .matrix(read)
        .matrix(set)
        .matrix(delete)
        .matrix(enabled)
        .matrix(set_enabled)
        .matrix(actions)
        .matrix(set_actions)
}

/// `GET /_matrix/client/v3/pushrules/`
#[tracing::instrument(name = "client.push_rules.list", skip_all)]
async fn all(
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_pushrules_all::v3::Request>,
) -> Result<Response, ApiError> {
    let rules = push_rules::account_data(&env.store.snapshot(), &requester.user).await;
    Ok(raw_json(rules.map_err(ApiError::internal)?))
}

/// `GET /_matrix/client/v3/pushrules/global/`
#[tracing::instrument(name = "client.push_rules.list_global", skip_all)]
async fn global(
    State(env): State<Env>,
    requester: Requester,
    Matrix(_): Matrix<get_pushrules_global_scope::v3::Request>,
) -> Result<Response, ApiError> {
    let rules = push_rules::ruleset(&env.store.snapshot(), &requester.user).await;
    Ok(raw_json(change::to_json(&rules.map_err(ApiError::internal)?).to_string()))
}

async fn find(
    env: &Env,
    requester: &Requester,
    kind: RuleKind,
    id: &str,
) -> Result<PushRule, ApiError> {
    let rules = push_rules::ruleset(&env.store.snapshot(), &requester.user).await;
    let rules = rules.map_err(ApiError::internal)?;
    let rule = rules.get(kind, id).map(shown);
    rule.ok_or_else(|| ApiError::not_found(ChangeRuleError::NotFound))
}

/// A rule as clients see it. ruma's own conversion panics at the kind of rules about threads.
fn shown(rule: AnyPushRuleRef<'_>) -> PushRule {
    match rule {
        AnyPushRuleRef::PostContent(rule) => {
            let ConditionalPushRule { actions, default, enabled, rule_id, conditions, .. } =
                rule.clone();
            ConditionalPushRuleInit { actions, default, enabled, rule_id, conditions }.into()
        }
        other => other.into(),
    }
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
#[tracing::instrument(name = "client.push_rules.read", skip_all)]
async fn read(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_pushrule::v3::Request>,
) -> Result<Matrix<get_pushrule::v3::Response>, ApiError> {
    let rule = find(&env, &requester, request.kind, &request.rule_id).await?;
    Ok(Matrix(get_pushrule::v3::Response::new(rule)))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
#[tracing::instrument(name = "client.push_rules.set", skip_all)]
async fn set(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_pushrule::v3::Request>,
) -> Result<Matrix<set_pushrule::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let placement =
        Placement { before: request.before.as_deref(), after: request.after.as_deref() };
    push_rules::add(&env, &requester.user, &request.rule, placement).await?;
    Ok(Matrix(set_pushrule::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
#[tracing::instrument(name = "client.push_rules.delete", skip_all)]
async fn delete(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<delete_pushrule::v3::Request>,
) -> Result<Matrix<delete_pushrule::v3::Response>, ApiError> {
    push_rules::remove(&env, &requester.user, &request.kind, &request.rule_id).await?;
    Ok(Matrix(delete_pushrule::v3::Response::new()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
#[tracing::instrument(name = "client.push_rules.read_enabled", skip_all)]
async fn enabled(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_pushrule_enabled::v3::Request>,
) -> Result<Matrix<get_pushrule_enabled::v3::Response>, ApiError> {
    let rule = find(&env, &requester, request.kind, &request.rule_id).await?;
    Ok(Matrix(get_pushrule_enabled::v3::Response::new(rule.enabled)))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
#[tracing::instrument(name = "client.push_rules.set_enabled", skip_all)]
async fn set_enabled(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_pushrule_enabled::v3::Request>,
) -> Result<Matrix<set_pushrule_enabled::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (kind, id) = (&request.kind, &request.rule_id);
    push_rules::set_enabled(&env, &requester.user, kind, id, request.enabled).await?;
    Ok(Matrix(set_pushrule_enabled::v3::Response::new()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
#[tracing::instrument(name = "client.push_rules.read_actions", skip_all)]
async fn actions(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_pushrule_actions::v3::Request>,
) -> Result<Matrix<get_pushrule_actions::v3::Response>, ApiError> {
    let rule = find(&env, &requester, request.kind, &request.rule_id).await?;
    Ok(Matrix(get_pushrule_actions::v3::Response::new(rule.actions)))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
#[tracing::instrument(name = "client.push_rules.set_actions", skip_all)]
async fn set_actions(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_pushrule_actions::v3::Request>,
) -> Result<Matrix<set_pushrule_actions::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (kind, id) = (&request.kind, &request.rule_id);
    push_rules::set_actions(&env, &requester.user, kind, id, &request.actions).await?;
    Ok(Matrix(set_pushrule_actions::v3::Response::new()))
}

impl From<PushRuleError> for ApiError {
    fn from(error: PushRuleError) -> Self {
        match error {
            PushRuleError::Add(AddRuleError::NeighbourNotFound(_)) => {
                Self::bad_request(ErrorKind::Unknown, error)
            }
            PushRuleError::Add(_) | PushRuleError::Change(ChangeRuleError::ServerDefault) => {
                Self::invalid_param(error)
            }
            PushRuleError::Change(ChangeRuleError::NotFound) => Self::not_found(error),
            PushRuleError::TooLarge => Self::too_large(error),
            PushRuleError::Store(_) => Self::internal(error),
        }
    }
}
