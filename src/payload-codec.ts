/** How payloads are kept: raw deflate with a preset dictionary of what every push payload says. */
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { LandfallError } from './errors.ts'

/** Stored beside each payload. A changed dictionary is a new number, and the old one stays readable. */
export const CODEC = 1

/**
 * A push of 7 kB is mostly names of fields and addresses: with them known beforehand 0.7 kB are left instead of 1.5, in the
 * same 45 µs. zlib's default output buffer of 16 kB costs more than the packing, in memory to be collected, so it is sized to
 * the body.
 */
export function packPayload(payload: Uint8Array | string): { readonly compressed: Uint8Array; readonly bytes: number } {
  const bytes = Buffer.byteLength(payload)
  const chunkSize = Math.max(1024, Math.min(64 * 1024, bytes >> 2))
  return { compressed: deflateRawSync(payload, { level: 3, chunkSize, dictionary: DICTIONARY }), bytes }
}

/** Throws `store` for a payload that a newer landfall packed. */
export function unpackPayload(compressed: Uint8Array, codec: number): string {
  if (codec !== CODEC)
    throw new LandfallError('store', `a payload is packed in a newer way (${codec}) than this one knows`)
  return inflateRawSync(compressed, { dictionary: DICTIONARY }).toString('utf8')
}

function dictionary(): Buffer {
  const id = '"id":,"node_id":""'
  const user = (names: string) =>
    `{${names},"avatar_url":"https://avatars.githubusercontent.com/u/?v=4","gravatar_id":"","url":"https://api.github.com/users/","html_url":"https://github.com/",${list(
      'https://api.github.com/users/',
      'followers /followers|following /following{/other_user}|gists /gists{/gist_id}|starred /starred{/owner}{/repo}|' +
        'subscriptions /subscriptions|organizations /orgs|repos /repos|events /events{/privacy}|' +
        'received_events /received_events',
    )},"type":"Organization","type":"User","user_view_type":"public","site_admin":false}`
  const repository = list(
    'https://api.github.com/repos/',
    'forks /forks|keys /keys{/key_id}|collaborators /collaborators{/collaborator}|teams /teams|hooks /hooks|' +
      'issue_events /issues/events{/number}|events /events|assignees /assignees{/user}|branches /branches{/branch}|' +
      'tags /tags|blobs /git/blobs{/sha}|git_tags /git/tags{/sha}|git_refs /git/refs{/sha}|trees /git/trees{/sha}|' +
      'statuses /statuses/{sha}|languages /languages|stargazers /stargazers|contributors /contributors|' +
      'subscribers /subscribers|subscription /subscription|commits /commits{/sha}|git_commits /git/commits{/sha}|' +
      'comments /comments{/number}|issue_comment /issues/comments{/number}|contents /contents/{+path}|' +
      'compare /compare/{base}...{head}|merges /merges|archive /{archive_format}{/ref}|downloads /downloads|' +
      'issues /issues{/number}|pulls /pulls{/number}|milestones /milestones{/number}|' +
      'notifications /notifications{?since,all,participating}|labels /labels{/name}|releases /releases{/id}|' +
      'deployments /deployments',
  )
  const commit =
    '{"id":"","tree_id":"","distinct":true,"message":"","timestamp":"2026-01-01T00:00:00+00:00","url":"https://github.com/' +
    '/commit/","author":{"name":"","email":"@users.noreply.github.com","date":"","username":""},"committer":{"name":"GitHub",' +
    '"email":"noreply@github.com","date":"","username":"web-flow"},"added":[],"removed":[],"modified":["README.md"]}'
  const github = `{"ref":"refs/heads/main","before":"0000000000000000000000000000000000000000","after":"","repository":{${id},"name":"","full_name":"","private":true,"private":false,"owner":${user(`"name":"","email":"@users.noreply.github.com","login":"",${id}`)},"html_url":"https://github.com/","description":null,"fork":false,"url":"https://api.github.com/repos/",${repository},"created_at":,"updated_at":"2026-01-01T00:00:00Z","pushed_at":,"git_url":"git://github.com/.git","ssh_url":"git@github.com:.git","clone_url":"https://github.com/.git","svn_url":"https://github.com/","homepage":null,"size":0,"stargazers_count":0,"watchers_count":0,"language":null,"has_issues":true,"has_projects":true,"has_downloads":true,"has_wiki":true,"has_pages":false,"has_discussions":false,"forks_count":0,"mirror_url":null,"archived":false,"disabled":false,"open_issues_count":0,"license":null,"allow_forking":true,"is_template":false,"web_commit_signoff_required":false,"topics":[],"visibility":"private","visibility":"public","forks":0,"open_issues":0,"watchers":0,"default_branch":"main","stargazers":0,"master_branch":"main","organization":"","custom_properties":{}},"pusher":{"name":"","email":"@users.noreply.github.com"},"organization":{"login":"",${id}},"sender":${user(`"login":"",${id}`)},"installation":{${id}},"created":false,"deleted":false,"forced":false,"base_ref":null,"compare":"https://github.com//compare/...","commits":[${commit}],"head_commit":${commit}}`
  const gitlab =
    '{"object_kind":"push","event_name":"push","before":"","after":"","ref":"refs/heads/main","ref_protected":true,' +
    '"checkout_sha":"","message":null,"user_id":,"user_name":"","user_username":"","user_email":"","user_avatar":' +
    '"https://gitlab.com/uploads/-/system/user/avatar/","project_id":,"project":{"id":,"name":"","description":"","web_url":' +
    '"https://gitlab.com/","avatar_url":null,"git_ssh_url":"git@gitlab.com:.git","git_http_url":"https://gitlab.com/.git",' +
    '"namespace":"","visibility_level":0,"path_with_namespace":"","default_branch":"main","ci_config_path":"","homepage":' +
    '"https://gitlab.com/","url":"git@gitlab.com:.git","ssh_url":"git@gitlab.com:.git","http_url":"https://gitlab.com/.git"},' +
    '"commits":[{"id":"","message":"","title":"","timestamp":"2026-01-01T00:00:00+00:00","url":"https://gitlab.com//-/commit/",' +
    '"author":{"name":"","email":""},"added":[],"modified":[],"removed":[]}],"total_commits_count":1,"push_options":{},' +
    '"repository":{"name":"","url":"","description":"","homepage":"","git_http_url":"","git_ssh_url":"","visibility_level":0}}'
  return Buffer.from(gitlab + github)
}

/** `"forks_url":"<base>/forks","keys_url":…` from `forks /forks|keys …`. */
function list(base: string, names: string): string {
  return names
    .split('|')
    .map((pair) => pair.split(' '))
    .map(([name, path]) => `"${name}_url":"${base}${path}"`)
    .join(',')
}

const DICTIONARY = dictionary()
